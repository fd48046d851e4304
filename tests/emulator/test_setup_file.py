"""The set-up file: what it makes, what wins over it, and each fault as one sentence."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import requests
import yaml

from celonis_emulator.document import BadDocument, read_document
from celonis_emulator.oauth import OAuthClient
from celonis_emulator.rights import EVERYTHING, EVERYWHERE, Right
from celonis_emulator.setup import (
    Connection,
    DataJob,
    DataModel,
    Key,
    ModelTable,
    Pool,
    Task,
    Team,
)
from celonis_emulator.setupfile import BadSetupFile, ServerPart, SetupFile, read_setup
from celonis_emulator.switches import PROFILES, Switches, chosen

from .conftest import APP_KEY, KEY, Command, Push, Server, StartServer, eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECRET = "s3cr3t-valu3"
ENVIRONMENT = {"LOADER_SECRET": SECRET, "EMPTY": "", "BLANK": " x"}

EXAMPLE = """
server:
  host: 127.0.0.1
  port: 0
  database: data/celonis.duckdb
  log_level: error
switches:
  profile: harsh
  conflict-scope: off          # no quotes needed
  strict-metadata: off
  cancel: on
  execute-not-new: 409
  queued-seconds: 0.5
  submits-per-hour: 0
  data-push-prefixes: [integration]
  fail-table: {broken: error}
pools:
  - id: prod
    name: Production
    connections:
      - {id: erp, name: ERP}
      - crm
    data_models:
      - id: p2p
        name: Purchase to pay
        tables:
          - ORDERS
          - {name: ORDERS, connection_id: erp, alias: ERP orders, id: t-2}
          - {name: ITEMS, connection_id: erp}
    data_jobs:
      - id: nightly
        name: Nightly
        connection_id: erp
        tasks:
          - name: Clean
            sql: |
              CREATE OR REPLACE TABLE CLEAN AS
              SELECT 1 AS ID;
          - SELECT 1
        data_models: [p2p]
  - scratch
keys:
  - key: everything
  - key: pushes
    kind: app
    permissions: {prod: [push], scratch: all}
  - key: sees
    permissions:
      "*": read
      prod: [read, edit]
oauth_clients:
  - id: loader
    secret_env: LOADER_SECRET
    auth: basic
    scope: integration.data-pools integration.data-pools:read
    permissions: {prod: [push]}
  - {id: other, secret: plain}
faults:
  - {match: execute_job, answer: 503, times: 2}
  - job: {table: bad, status: CANCELED}
"""


def read(tmp_path: Path, text: str, given: Team | None = None, name: str = "e.yaml") -> SetupFile:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return read_setup(path, ENVIRONMENT, given or Team())


def test_the_example(tmp_path: Path) -> None:
    found = read(tmp_path, EXAMPLE)
    assert found.server == ServerPart(
        host="127.0.0.1", port=0, database=tmp_path / "data/celonis.duckdb", log_level="error"
    )
    assert found.profile == "harsh"
    assert found.switches == {
        "conflict_scope": "off",
        "strict_metadata": False,
        "cancel": True,
        "execute_not_new": "409",
        "queued_seconds": 0.5,
        "submits_per_hour": 0,
        "data_push_prefixes": ("integration",),
        "fail_table": (("broken", "ERROR"),),
    }
    tables = (
        ModelTable("ORDERS", "ORDERS"),
        ModelTable("t-2", "ORDERS", "erp", "ERP orders"),
        ModelTable("ITEMS", "ITEMS", "erp"),
    )
    tasks = (
        Task("1", "Clean", "CREATE OR REPLACE TABLE CLEAN AS\nSELECT 1 AS ID;\n"),
        Task("2", "Task 2", "SELECT 1"),
    )
    assert found.team == Team(
        (Pool("prod", "Production"), Pool("scratch", "scratch")),
        (Connection("prod", "erp", "ERP"), Connection("prod", "crm", "crm")),
        (DataModel("prod", "p2p", "Purchase to pay", tables),),
        (DataJob("prod", "nightly", "Nightly", "erp", tasks, ("p2p",)),),
    )
    sees = {"*": frozenset({Right.READ}), "prod": frozenset({Right.READ, Right.EDIT})}
    assert found.keys == (
        Key("everything", "api", EVERYWHERE),
        Key("pushes", "app", {"prod": frozenset({Right.PUSH}), "scratch": EVERYTHING}),
        Key("sees", "api", sees),
    )
    scopes = ("integration.data-pools", "integration.data-pools:read")
    assert found.oauth_clients == (
        OAuthClient("loader", SECRET, "basic", scopes, {"prod": frozenset({Right.PUSH})}),
        OAuthClient("other", "plain"),
    )
    assert [fault.match for fault in found.faults] == ["execute_job", None]
    assert SECRET not in repr(found)
    assert "plain" not in repr(found)


def test_json_says_the_same(tmp_path: Path) -> None:
    content = yaml.safe_load(EXAMPLE.replace(": off", ": 'off'").replace(": on", ": 'on'"))
    for indent in (None, 2, "\t"):
        text = json.dumps(content, indent=indent)
        assert read(tmp_path, text, name="e.json") == read(tmp_path, EXAMPLE, name="e.json")
    assert read(tmp_path, json.dumps({"pools": ["😀"]})).team.pools[0].id == "😀"


@pytest.mark.parametrize("text", ["", "\n# nothing\n", "{}", "---\n", "pools:\nkeys: ~\n"])
def test_nothing_is_fine(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == SetupFile()


def test_a_part_can_be_used_again(tmp_path: Path) -> None:
    text = """
    pools:
      - &one {id: one, connections: [erp], data_models: [{id: m, tables: [a]}]}
      - {<<: *one, id: two}
    """
    team = read(tmp_path, text).team
    assert [pool.id for pool in team.pools] == ["one", "two"]
    assert [model.pool_id for model in team.data_models] == ["one", "two"]


def test_what_the_command_line_makes_may_be_named(tmp_path: Path) -> None:
    given = Team((Pool("p", "p"),), (Connection("p", "c", "c"),))
    text = """
    pools: [{id: p, data_jobs: [{id: j, connection_id: c}]}]
    keys: [{key: k, permissions: {p: read}}]
    """
    assert read(tmp_path, text, given).team.data_jobs[0].connection_id == "c"
    assert read(tmp_path, "keys: [{key: k, permissions: {p: read}}]", given).keys
    assert read(tmp_path, "keys: [{key: k, permissions: {local: read}}]").keys


def pool(text: str) -> str:
    return "pools: [{id: p, connections: [c], " + text + "}]"


def model(text: str) -> str:
    return pool("data_models: [{id: m}, {id: n, " + text + "}]")


def job(text: str) -> str:
    return pool("data_models: [{id: m}], data_jobs: [{id: j, " + text + "}]")


# What stands in the file -> what is said of it, behind the file's name.
FAULTY: dict[str, tuple[str, str]] = {
    "no mapping": ("[1]", "expected server, switches, .*; found a list."),
    "text": ("hello", "expected server, .*; found text."),
    "name, near": ("pool: []", "pool is not known; did you mean pools?"),
    "name, far": ("zzz: 1", "zzz is not known; there are: server, .*faults."),
    "strange name": ('"a b": 1', '"a b" is not known; there are: .*'),
    "pools": ("pools: {id: p}", "pools: expected a list, found a mapping."),
    "pool": ("pools: [1]", "pools[0]: expected id, .*; found a number."),
    "pool without id": ("pools: [{name: n}]", "pools[0].id is missing."),
    "pool id": ("pools: [{id: a/b}]", "pools[0].id: an id has no blanks and none of / ? # %."),
    "number as id": ("pools: [{id: 7}]", "pools[0].id: expected text, found a number; put it .*."),
    "blank name": ("pools: [{id: p, name: ' '}]", "pools[0].name: expected text, found a blank.*"),
    "true as name": (
        "pools: [{id: p, name: true}]",
        "pools[0].name: expected text, found true or .*",
    ),
    "list as name": ("pools: [{id: p, name: []}]", "pools[0].name: expected text, found a list."),
    "nul": ('pools: [{id: p, name: "a\\0"}]', "pools[0].name: expected text, .* NUL character."),
    "pool twice": ("pools: [p, p]", "pools[1].id: the same as that of pools[0]."),
    "unknown part of a pool": (
        pool("conections: []"),
        "pools[0].conections is not known; did you mean connections?",
    ),
    "connection": ("pools: [{id: p, connections: [[]]}]", "pools[0].connections[0]: expected .*"),
    "connection twice": (
        "pools: [{id: p, connections: [c, {id: c}]}]",
        "pools[0].connections[1].id: the same as that of pools[0].connections[0].",
    ),
    "table without name": (
        model("tables: [{alias: A}]"),
        "pools[0].data_models[1].tables[0].name is missing.",
    ),
    "table's unknown name": (
        model("tables: [a, {name: b, conection_id: c}]"),
        "pools[0].data_models[1].tables[1].conection_id is not known; did you mean .*_id?",
    ),
    "table's connection": (
        model("tables: [{name: b, connection_id: cc}]"),
        "pools[0].data_models[1].tables[0].connection_id: the pool has no connection cc; did .* c?",
    ),
    "table twice": (
        model("tables: [a, {name: b, alias: A}]"),
        "pools[0].data_models[1].tables[1].name: the same as that of .*.tables[0].",
    ),
    "table id twice": (
        model("tables: [{name: a, id: x}, {name: b, id: x}]"),
        "pools[0].data_models[1].tables[1].id: the same as that of .*.tables[0].",
    ),
    "model twice": (
        pool("data_models: [{id: m}, {id: m}]"),
        "pools[0].data_models[1].id: the same as that of pools[0].data_models[0].",
    ),
    "job's connection": (
        job("connection_id: x"),
        "pools[0].data_jobs[0].connection_id: the pool has no connection x; there are: c.",
    ),
    "job's model": (
        job("data_models: [n]"),
        "pools[0].data_jobs[0].data_models[0]: the pool has no data model n; there are: m.",
    ),
    "task without sql": (
        job("tasks: [{name: t}]"),
        "pools[0].data_jobs[0].tasks[0].sql is missing.",
    ),
    "task id twice": (
        job("tasks: [{sql: a, id: '2'}, b]"),
        "pools[0].data_jobs[0].tasks[1].id: the same as that of .*.tasks[0].",
    ),
    "job twice": (
        pool("data_jobs: [{id: j}, {id: j}]"),
        "pools[0].data_jobs[1].id: the same as that of pools[0].data_jobs[0].",
    ),
    "key alone": (f"keys: [{SECRET}]", "keys[0]: expected key, key_env, .*; found text."),
    "key without key": ("keys: [{kind: api}]", "keys[0]: expected either key or key_env."),
    "both": (f"keys: [{{key: {SECRET}, key_env: X}}]", "keys[0]: expected either key or key_env."),
    "key as name": (
        f"keys: [{{{SECRET}: api}}]",
        "keys[0]: a name in it is not known; there are: .*",
    ),
    "key's name, near": ("keys: [{kye: k}]", "keys[0].kye is not known; did you mean key?"),
    "number as key": ("keys: [{key: 123}]", "keys[0].key: expected text, found a number; .*"),
    "kind": (f"keys: [{{key: {SECRET}, kind: user}}]", "keys[0].kind: expected one of api, app."),
    "unset variable": (
        "keys: [{key_env: NONE}]",
        "keys[0].key_env: the environment has no such .*",
    ),
    "empty variable": ("keys: [{key_env: EMPTY}]", "keys[0].key_env: the environment has no .*"),
    "no variable": (
        f"keys: [{{key_env: {SECRET}}}]",
        "keys[0].key_env: this is no name of an environment variable.",
    ),
    "blanks around": ("keys: [{key_env: BLANK}]", "keys[0].key_env: it begins or ends .*"),
    "key twice": (
        f"keys: [{{key: k}}, {{key: {SECRET}}}, {{key: {SECRET}}}]",
        "keys[2]: the same key as keys[1].",
    ),
    "permissions": (
        "keys: [{key: k, permissions: [read]}]",
        "keys[0].permissions: expected a mapping, found a list.",
    ),
    "permissions of no pool": (
        "pools: [prod]\nkeys: [{key: k, permissions: {prd: read}}]",
        "keys[0].permissions.prd: there is no such pool; did you mean prod?",
    ),
    "permission": (
        "pools: [p]\nkeys: [{key: k, permissions: {p: [read, pusch]}}]",
        "keys[0].permissions.p[1]: pusch is no permission; did you mean push?",
    ),
    "permission alone": (
        "keys: [{key: k, permissions: {'*': write}}]",
        'keys[0].permissions."*": write is no permission; .*',
    ),
    "client": ("oauth_clients: [{secret: s}]", "oauth_clients[0].id is missing."),
    "client's secret": ("oauth_clients: [{id: i}]", "oauth_clients[0]: expected either secret .*"),
    "client's id": (
        "oauth_clients: [{id: 'a:b', secret: s}]",
        "oauth_clients[0].id: the id of an OAuth client has no colon.",
    ),
    "client's way": (
        f"oauth_clients: [{{id: i, secret: {SECRET}, auth: body}}]",
        "oauth_clients[0].auth: expected one of basic, post, both.",
    ),
    "client twice": (
        "oauth_clients: [{id: i, secret: s}, {id: i, secret: t}]",
        "oauth_clients[1].id: the same as that of oauth_clients[0].",
    ),
    "switch, near": (
        "switches: {strict_metadata: on}",
        "switches.strict_metadata is not known; did you mean strict-metadata?",
    ),
    "switches": ("switches: harsh", "switches: expected a mapping, found text."),
    "profile": ("switches: {profile: hash}", "switches.profile: expected one of lenient, harsh."),
    "on or off": ("switches: {cancel: maybe}", "switches.cancel: expected on or off."),
    "choice": ("switches: {oversize: cut}", "switches.oversize: expected one of truncate, .*"),
    "status": ("switches: {execute-not-new: 404}", ".*execute-not-new: expected one of 400, 409."),
    "count": ("switches: {submits-per-hour: 1.5}", ".*hour: expected a whole number from 0 on."),
    "negative": ("switches: {queued-seconds: -1}", ".*seconds: expected a number from 0 on."),
    "true as count": ("switches: {token-seconds: true}", ".*expected a whole number from 0 on."),
    "prefixes": ("switches: {data-push-prefixes: x}", ".*prefixes: expected some of data-.*"),
    "fail-table": ("switches: {fail-table: {t: DONE}}", ".*: expected a mapping of table names .*"),
    "port": ("server: {port: 70000}", "server.port: expected a whole number from 0 to 65535."),
    "log level": ("server: {log_level: loud}", "server.log_level: expected one of critical, .*"),
    "half a certificate": ("server: {tls_cert: c}", "server.tls_cert: tls_key is missing .*"),
    "the other half": ("server: {tls_key: c}", "server.tls_key: tls_cert is missing .*"),
    "faults": ("faults: [{job: {table: t, status: DONE}}]", "faults[0].job.status: .*"),
    "fault's name": (
        "faults: [{match: execute_job, anwser: 500}]",
        "faults[0].anwser is not known; did you mean answer?",
    ),
    "inner fault's name": (
        "faults: [{match: execute_job, answer: {stauts: 500}}]",
        "faults[0].answer.stauts is not known; did you mean status?",
    ),
    "no fault": ("faults: [x]", "faults[0]: expected match, .*; found text."),
}


@pytest.mark.parametrize("name", FAULTY)
def test_faults_of_the_file(tmp_path: Path, name: str) -> None:
    text, said = FAULTY[name]
    with pytest.raises(BadSetupFile) as refused:
        read(tmp_path, text)
    sentence = str(refused.value)
    pattern = re.escape(said).replace(r"\.\*", ".*")
    assert re.fullmatch(re.escape(f"{tmp_path / 'e.yaml'}: ") + pattern, sentence), sentence
    assert SECRET not in sentence


UNREADABLE: dict[str, tuple[str | bytes, str]] = {
    "open bracket": ("pools: [", ", line 1, column 9: this is no valid YAML"),
    "tab": ("pools:\n\t- p", ", line 2, column 1: this is no valid YAML"),
    "alias": (f"keys:\n- key: *{SECRET}", ", line 2, column 8: this is no valid YAML"),
    "percent": (f"keys:\n- key: %{SECRET}", ", line 2, column 8: this is no valid YAML"),
    "tag": (f"a: !{SECRET} 1", ", line 1, column 4: this is no valid YAML"),
    "python": ("a: !!python/name:os.system", ", line 1, column 4: this is no valid YAML"),
    "two documents": ("a: 1\n---\nb: 1", ", line 2, column 1: this is no valid YAML"),
    "name twice": (
        f"keys:\n- key: a\n  key: {SECRET}",
        ", line 3, column 3: a name is given twice.",
    ),
    "pool twice in permissions": (
        "keys: [{key: k, permissions: {p: read, p: all}}]",
        ", line 1, column 40: a name is given twice.",
    ),
    "number as name": (
        "keys: [{key: k, permissions: {1: read}}]",
        ", line 1, column 31: a name is",
    ),
    "name without value": ("? [a]\n: 1", ", line 1, column 3: a name is no text"),
    "control letter": ("a: \x07", ": this is no valid YAML"),
    "latin": ("a: ü".encode("latin-1"), "is not UTF-8 text."),
    "deep": ("[" * 5000, ": this is no valid YAML"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_is_no_yaml(tmp_path: Path, name: str) -> None:
    content, said = UNREADABLE[name]
    path = tmp_path / "e.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BadDocument) as refused:
        read_document(path)
    sentence = str(refused.value)
    assert str(path) in sentence
    assert said in sentence
    assert sentence.count("\n") == 0
    assert sentence.endswith(".")
    assert SECRET not in sentence


def test_values_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    (path := tmp_path / "e.yaml").write_text(
        "{a: on, b: no, c: 2024-01-02, d: 007, e: 12:30, f: 1e3, g: -2, h: ~, i: true, j: .5, k: }"
    )
    assert read_document(path) == {
        "a": "on",
        "b": "no",
        "c": "2024-01-02",
        "d": "007",
        "e": "12:30",
        "f": 1000.0,
        "g": -2,
        "h": None,
        "i": True,
        "j": ".5",
        "k": None,
    }


def test_a_fault_ends_the_program_with_2(tmp_path: Path, command: Command) -> None:
    (path := tmp_path / "e.yaml").write_text(f"keys:\n  - {{key: {SECRET}, kin: app}}")
    ended = command("serve", "--config", str(path))
    assert ended.code == 2
    assert ended.stderr == (
        f"celonis-emulator: {path}: keys[0].kin is not known; did you mean kind?\n"
    )
    missing = command("serve", "--config", str(tmp_path / "none.yaml"))
    assert missing.code == 2
    assert missing.stderr.count("\n") == 1
    assert "none.yaml cannot be read" in missing.stderr
    assert [found.name for found in tmp_path.iterdir()] == ["e.yaml"]


def test_what_cannot_be_made_ends_the_program_with_2(tmp_path: Path, command: Command) -> None:
    (path := tmp_path / "e.yaml").write_text("pools: [a_b, {id: a, connections: [b]}]")
    database = str(tmp_path / "c.duckdb")
    ended = command("serve", "--port", "0", "--config", str(path), "--database", database)
    assert ended.code == 2
    assert "schema" in ended.stderr


# Switches and profiles


def test_what_wins() -> None:
    harsh = Switches(**PROFILES["harsh"])
    assert chosen("lenient") == Switches()
    assert chosen("harsh") == harsh != Switches()
    file = {"cancel": True, "oversize": "error"}
    switches = chosen("harsh", file, {"oversize": "widen"})
    assert (switches.cancel, switches.oversize, switches.mixed_chunks) == (True, "widen", "refuse")


# A server with a file


def listed(server: Server, path: str) -> list[str]:
    return [entry["id"] for entry in server.get(f"/integration/api/{path}").json()]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def written(text: str) -> Path:
        (path := tmp_path / "emulator.yaml").write_text(text)
        return path

    return written


def test_a_server_from_a_file_starts_again_as_it_was(
    start_server: StartServer, write: Callable[[str], Path]
) -> None:
    text = EXAMPLE.partition("oauth_clients:")[0]
    # The example's switches are not for this test.
    text = re.sub(r"switches:.*?(?=pools:)", "", text, flags=re.DOTALL)
    config = write(text)
    server = start_server("--config", str(config))
    push = Push(server, "prod")
    push.load("ORDERS", {"id": [1]})
    push.load("ITEMS", {"id": [1, 2]}, connectionId="erp")
    push.load("ORDERS", {"id": [1, 2, 3]}, connectionId="erp")

    def load() -> dict[str, int]:
        base = "/integration/api/v1/data-pools/prod/data-models/p2p/load"
        assert server.post(base).status_code == 200
        path = "/integration/api/pools/prod/data-models/p2p/load-history/load-info-sync"

        def ended() -> Any:
            shown = server.get(path).json()["loadInfo"]
            status = (shown["currentComputeLoad"] or {}).get("loadStatus")
            return shown if status == "SUCCESS" else None

        tables = eventually(ended, "the load ends")["liveDataModel"]["tableLoads"]
        return {table["tableName"]: table["tableRowCount"] for table in tables}

    counts = {"ORDERS": 1, "ERP orders": 3, "ITEMS": 2}
    everything = (
        *("pools", "pools/prod/data-sources/", "pools/prod/data-models", "pools/prod/jobs"),
        "pools/prod/data-model/p2p/tables",
    )
    before = {path: server.get(f"/integration/api/{path}").json() for path in everything}
    assert listed(server, "pools") == ["prod", "scratch"]
    assert listed(server, "pools/prod/jobs") == ["nightly"]
    assert load() == counts
    history = server.get("/_emulator/history").json()

    for again in (("--config", str(config)), ("--pool", "prod")):
        assert server.stop() == 0
        server = start_server(*again, database=server.database)
        assert {p: server.get(f"/integration/api/{p}").json() for p in everything} == before
        assert server.get("/_emulator/history").json() == history
    assert load() == counts

    # What the file says anew of a data model or job is so from then on.
    write(text.replace("          - ORDERS\n", "").replace("name: Nightly", "name: Daily"))
    server.stop()
    server = start_server("--config", str(config), database=server.database)
    assert load() == {"ERP orders": 3, "ITEMS": 2}
    assert server.get("/integration/api/pools/prod/jobs").json()[0]["name"] == "Daily"


def test_keys_clients_and_faults_of_a_file(
    start_server: StartServer, write: Callable[[str], Path]
) -> None:
    text = """
    keys:
      - {key_env: PUSHES, permissions: {local: push}}
      - {key_env: CELONIS_EMULATOR_APP_KEY, kind: app, permissions: {local: read}}
    oauth_clients:
      - {id: loader, secret_env: LOADER_SECRET, auth: post}
    faults:
      - {match: "GET /api/team", answer: 503, times: 1}
    """
    server = start_server("--config", str(write(text)), environment=ENVIRONMENT | {"PUSHES": "p"})

    def status(who: str, path: str) -> int:
        headers = {"Authorization": who}
        return requests.get(server.url + path, headers=headers, timeout=20).status_code

    jobs = "/integration/api/v1/data-push/local/jobs"
    # A key of the environment that the file does not name may do everything.
    for who, expected in (
        ("Bearer p", [403, 200]),
        (f"AppKey {APP_KEY}", [200, 403]),
        (f"Bearer {KEY}", [200, 200]),
        ("Bearer other", [401, 401]),
    ):
        assert [status(who, "/integration/api/pools/local"), status(who, jobs)] == expected
    grant = {"grant_type": "client_credentials"}
    url = f"{server.url}/oauth2/token"
    basic = requests.post(url, auth=("loader", SECRET), data=grant, timeout=20)
    posted = grant | {"client_id": "loader", "client_secret": SECRET}
    assert basic.status_code == 401
    assert requests.post(url, data=posted, timeout=20).status_code == 200
    assert [server.get("/api/team").status_code for _ in range(2)] == [503, 200]


def test_the_command_line_wins(start_server: StartServer, write: Callable[[str], Path]) -> None:
    config = write(
        """
        server: {port: 1, database: never/made.duckdb}
        switches: {profile: harsh, delta-missing-table: create, created-status: 201}
        pools: [{id: p, name: File, connections: [c]}]
        keys: [{key: k}]
        oauth_clients: [{id: client, secret: old}]
        """
    )
    server = start_server(
        *("--config", str(config), "--pool", "p=Line", "--connection", "q:d"),
        *("--oauth-client", "client:new", "--created-status", "200", "--profile", "lenient"),
    )
    assert not (config.parent / "never").exists()
    pools = server.get("/integration/api/pools").json()
    assert pools == [{"id": "p", "name": "Line"}, {"id": "q", "name": "q"}]
    assert listed(server, "pools/p/data-sources/") == ["c"]
    assert listed(server, "pools/q/data-sources/") == ["d"]
    assert Push(server, "p").try_create("t", unknown=1).status_code == 200
    grant = {"grant_type": "client_credentials"}
    statuses = [
        requests.post(
            f"{server.url}/oauth2/token", auth=("client", secret), data=grant, timeout=20
        ).status_code
        for secret in ("old", "new")
    ]
    assert statuses == [401, 200]


def test_a_switch_of_the_file_wins_over_a_profile_of_the_command_line(
    start_server: StartServer, write: Callable[[str], Path]
) -> None:
    config = write("switches: {delta-missing-table: create, created-status: 201}")
    push = Push(start_server("--config", str(config), "--profile", "harsh"))
    assert push.try_create("t", unknown=1).status_code == 400
    assert push.try_create("t").status_code == 201
    assert push.server.post(f"{push.base}/none/cancel").status_code == 404


def test_without_a_file_there_is_one_of_each(start_server: StartServer) -> None:
    server = start_server()
    assert listed(server, "pools") == ["local"]
    assert listed(server, "pools/local/data-sources/") == ["connection"]
    assert listed(server, "pools/local/data-models") == ["model"]
    assert listed(server, "pools/local/jobs") == ["job"]
    push = Push(server)
    push.load("t", {"a": [1]}, connectionId="connection")
    base = "/integration/api/pools/local"
    assert server.post(f"{base}/data-models/model/reload?forceComplete=true").status_code == 200
    assert server.post(f"{base}/jobs/job/execute", json={"mode": "DELTA"}).status_code == 200
    info = f"{base}/data-models/model/load-history/load-info-sync"

    def loaded() -> bool:
        load = server.get(info).json()["loadInfo"]["currentComputeLoad"]
        return load is not None and load["loadStatus"] == "SUCCESS"

    eventually(loaded, "the data model is loaded")
    eventually(
        lambda: server.get(f"{base}/logs/status").json()[0]["status"] == "SUCCESS", "the job ends"
    )


@pytest.mark.parametrize(
    ("options", "pools"),
    [
        (("--pool", "x"), {"x": []}),
        (("--pool", "x", "--connection", "x:y"), {"x": ["y"]}),
        (("--connection", "x:y"), {"local": [], "x": ["y"]}),
    ],
)
def test_who_names_a_pool_gets_nothing_else(
    start_server: StartServer, options: tuple[str, ...], pools: dict[str, list[str]]
) -> None:
    server = start_server(*options)
    assert {p: listed(server, f"pools/{p}/data-sources/") for p in listed(server, "pools")} == pools
    for pool_id in pools:
        assert listed(server, f"pools/{pool_id}/data-models") == []
        assert listed(server, f"pools/{pool_id}/jobs") == []
