"""The OpenAPI document: complete and true, and nothing a client sends is a fault of the server."""

from __future__ import annotations

import itertools
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pyarrow as pa
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .conftest import ENDED, KEY, Push, Server, StartServer, eventually, parquet

if TYPE_CHECKING:
    from collections.abc import Iterator

METHODS = {"get", "post", "put", "patch", "delete"}
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "missing_required_header",
    "ignored_auth",
)
JSON = "Content-Type: application/json"
PUSH = "/data-ingestion/api/v1/data-push/local/jobs"
JOB = {"targetName": "t", "type": "DELTA", "dataPoolId": "local"}
# What cannot be answered otherwise than by 500, whatever it is that went wrong.
FAULT = "internal"
fuzz = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def document(shared_server: Server) -> dict[str, Any]:
    answer = requests.get(shared_server.url + "/openapi.json", timeout=20)
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert method in METHODS
            yield method, path, operation


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for inner in part.values():
            yield from references(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from references(inner)


# The document by itself


def test_every_operation_is_described(document: dict[str, Any]) -> None:
    named = {tag["name"] for tag in document["tags"]}
    ids = []
    for method, path, operation in operations(document):
        ids.append(operation["operationId"])
        assert operation["description"], path
        assert len(operation["tags"]) == 1
        assert set(operation["tags"]) <= named
        assert {p["name"] for p in operation.get("parameters", ()) if p["in"] == "path"} == set(
            re.findall(r"\{(\w+)\}", path)
        )
        responses = operation["responses"]
        assert "422" not in responses
        assert "401" in responses
        assert ("404" in responses) == ("{" in path)
        assert ("400" in responses) == ("parameters" in operation or "requestBody" in operation)
        for status, response in responses.items():
            content = response.get("content")
            if content is None:
                assert (status, method) in {("200", "post"), ("200", "delete")}
            else:
                assert content["application/json"]["schema"], (path, status)
    assert len(set(ids)) == len(ids)
    assert len(ids) > 40


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    used = set(references(document))
    assert used
    for reference in used:
        part: Any = document
        for step in reference.removeprefix("#/").split("/"):
            part = part[step]
    schemas = document["components"]["schemas"]
    assert not [
        name for name in schemas if "ValidationError" in name and name != "ValidationErrors"
    ]
    assert not [name for name in schemas if "__" in name]
    ids = {operation["operationId"] for _, _, operation in operations(document)}
    for _, _, operation in operations(document):
        for link in operation["responses"].get("200", {}).get("links", {}).values():
            assert link["operationId"] in ids


def test_how_to_log_in_and_both_prefixes_are_told(document: dict[str, Any]) -> None:
    schemes = document["components"]["securitySchemes"]
    assert {scheme["type"] for scheme in schemes.values()} == {"http", "apiKey", "oauth2"}
    assert [list(one) for one in document["security"]] == [["ApiKey"], ["AppKey"], ["OAuth"]]
    told = document["info"]["description"]
    assert "/integration/" in told
    assert "/data-ingestion/" in told
    token = document["paths"]["/oauth2/token"]["post"]
    assert token["security"] == [{"OAuthClient": []}, {}]
    chunk = document["paths"][PUSH.replace("local", "{pool_id}") + "/{job_id}/chunks/upserted"]
    assert "multipart/form-data" in chunk["post"]["requestBody"]["content"]
    assert {"413", "500"} <= set(chunk["post"]["responses"])


def test_the_document_needs_no_key_and_has_a_page(shared_server: Server) -> None:
    page = requests.get(shared_server.url + "/docs", timeout=20)
    assert page.status_code == 200
    assert "openapi.json" in page.text


# The program schemathesis against a server


def known_ids(server: Server) -> dict[str, list[str]]:
    """Make some of everything, and return ids by the names of parameters and fields."""
    push = Push(server)
    jobs = []
    for number in range(30):
        fields: dict[str, Any] = {"keys": ["a"]} if number % 2 else {}
        if number % 3 == 0:
            fields["fileType"] = "CSV"
        jobs.append(push.create(f"t{number}", "DELTA", **fields))
    push.load("loaded", {"a": [1], "s": ["x"]})
    model = {"id": "m", "tables": [{"name": "loaded"}]}
    data_job = {"id": "j", "tasks": [{"sql": "SELECT 1"}], "data_models": ["m"]}
    for what, body in (("data-models", model), ("data-jobs", data_job)):
        answer = server.post(f"/_emulator/pools/local/{what}", json=body)
        assert answer.status_code == 200, answer.text
    return {
        **{name: ["local"] for name in ("pool_id", "poolId", "dataPoolId")},
        "job_id": [*jobs, *["j"] * 10],
        "jobId": ["j"],
        "model_id": ["m"],
        **{name: ["c"] for name in ("data_source_id", "connectionId", "schemaName")},
        "tableName": ["loaded"],
    }


def schemathesis(
    server: Server, *arguments: str, known: dict[str, list[str]]
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "schemathesis.cli", "run", server.url + "/openapi.json"]
    command += ["--header", f"Authorization: Bearer {KEY}", "--checks", ",".join(CHECKS)]
    command += ["--seed", "1", "--generation-database", "none", "--no-color"]
    # Faults that are set by chance would be found as what they are.
    command += ["--exclude-operation-id", "add_faults"]
    environment = os.environ | {
        "SCHEMATHESIS_HOOKS": "openapi_hooks",
        "PYTHONPATH": str(Path(__file__).parent),
        "KNOWN_IDS": json.dumps(known),
    }
    return subprocess.run(
        [*command, *arguments],
        env=environment,
        cwd=server.database.parent,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.mark.parametrize(
    ("profile", "phases", "examples"),
    [
        ("lenient", "fuzzing,stateful", 2),
        pytest.param("lenient", "coverage,fuzzing,stateful", 12, marks=pytest.mark.slow),
        pytest.param("harsh", "coverage,fuzzing,stateful", 12, marks=pytest.mark.slow),
    ],
)
def test_the_answers_are_as_documented(
    start_server: StartServer, tmp_path: Path, profile: str, phases: str, examples: int
) -> None:
    log = tmp_path / "log.txt"
    server = start_server("--connection", "local:c", "--profile", profile, log=log)
    effort = ("--phases", phases, "--max-examples", str(examples))
    ended = schemathesis(server, *effort, known=known_ids(server))
    assert ended.returncode == 0, ended.stdout[-20_000:] + ended.stderr
    # It got behind the doors: something was executed.
    jobs = server.get("/_emulator/history").json()
    assert [job for job in jobs if job["submits"] and job["table"] != "loaded"]
    said = log.read_text(errors="replace")
    assert "Traceback" not in said, said


def test_what_is_not_as_documented_is_found(start_server: StartServer) -> None:
    """Else the test above would show nothing."""
    server = start_server()
    for path, answer in (
        ("/integration/api/pools", 500),
        ("/api/team", 418),
        ("/api/cloud", {"status": 200, "body": {"id": 1}}),
        ("/api/cloud/permissions", {"status": 200, "body": "[]", "content_type": "text/html"}),
    ):
        fault = {"match": f"GET {path}", "answer": answer, "times": 0}
        assert server.post("/_emulator/faults", json=fault).status_code == 200
    only = [("--include-operation-id", name) for name in ("list_pools", "get_team", "get_user")]
    only.append(("--include-operation-id", "list_permissions"))
    effort = ("--phases", "fuzzing", "--max-examples", "1", "--continue-on-failure")
    ended = schemathesis(server, *effort, *itertools.chain(*only), known={})
    assert ended.returncode == 1
    for found in (
        "Server error",
        "Undocumented status code",
        "Response violates schema",
        "Undocumented Content-Type",
        "API accepts requests without authentication",
    ):
        assert found in ended.stdout


# What no client library sends


def raw(server: Server, request: bytes) -> bytes:
    """Send bytes, and return those of the answer."""
    parts = urlsplit(server.url)
    address = (str(parts.hostname), int(parts.port or 0))
    with socket.create_connection(address, timeout=20) as line:
        line.sendall(request)
        return b"".join(iter(lambda: line.recv(65_536), b""))


def spelled(method: str, path: str | bytes, body: bytes = b"", *headers: str | bytes) -> bytes:
    path = path if isinstance(path, bytes) else path.encode()
    lines = [method.encode() + b" " + path + b" HTTP/1.1", b"Host: h", b"Connection: close"]
    lines += [f"Authorization: Bearer {KEY}".encode(), f"Content-Length: {len(body)}".encode()]
    lines += [header if isinstance(header, bytes) else header.encode() for header in headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def status_of(server: Server, request: bytes) -> int:
    answer = raw(server, request)
    assert answer.startswith(b"HTTP/1.1 "), answer[:100]
    assert FAULT.encode() not in answer.lower(), answer
    return int(answer[9:12])


def job_with(**fields: Any) -> bytes:
    return json.dumps(JOB | fields).encode()


DEEP = b"[" * 30_000 + b"]" * 30_000
HALF = "\ud800"
BODIES = {
    "deep list": DEEP,
    "deep object": b'{"a":' * 30_000 + b"1" + b"}" * 30_000,
    "deep inside": job_with()[:-1]
    + b', "tableSchema": '
    + b'{"columns":' * 900
    + b"1"
    + b"}" * 901,
    "half a pair": job_with(targetName=HALF),
    "half a pair in a key": job_with(keys=[HALF]),
    "half a pair in an id": job_with(connectionId=HALF),
    "half a pair as a name": job_with(**{HALF: 1}),
    "half a pair in a column": job_with(
        tableSchema={"columns": [{"columnName": HALF, "columnType": "STRING"}]}
    ),
    "half a pair in what is wrong": job_with(type=HALF),
    "NUL in a table": job_with(targetName="a\0b"),
    "NUL in an id": job_with(connectionId="\0"),
    "long number": job_with()[:-1] + b', "fallbackVarcharLength": ' + b"9" * 5000 + b"}",
    "large number": job_with(fallbackVarcharLength=10**30),
    "infinite": job_with()[:-1] + b', "fallbackVarcharLength": 1e400}',
    "no number": job_with()[:-1] + b', "fallbackVarcharLength": NaN}',
    "no UTF-8": b'{"targetName": "\xff\xfe"}',
    "cut off": job_with()[:-5],
    "null": b"null",
    "a number": b"1",
    "a list": b"[]",
    "nothing": b"",
    "two values": job_with() + job_with(),
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies_that_cannot_be(shared_server: Server, name: str) -> None:
    assert status_of(shared_server, spelled("POST", PUSH, BODIES[name], JSON)) in {400, 404}


@pytest.mark.parametrize(
    "body",
    [
        job_with(targetName="\N{PILE OF POO}" * 20),
        job_with(targetName=HALF + "\udc00"),
        job_with(changeDate=10**15),
        job_with(unknown="\\ud800", **{"\\ud800": {}}),
        b"\xef\xbb\xbf" + job_with(),
        job_with() + b" " * 100_000,
        job_with()[:-1] + b', "x": ' + b"[" * 500 + b"]" * 500 + b"}",
    ],
)
def test_bodies_that_only_look_so(shared_server: Server, body: bytes) -> None:
    assert status_of(shared_server, spelled("POST", PUSH, body, JSON)) == 200


@pytest.mark.parametrize(
    "path",
    [
        "/_emulator/query",
        "/_emulator/faults",
        "/_emulator/pools",
        "/_emulator/pools/local/connections",
        "/_emulator/pools/local/data-models",
        "/_emulator/pools/local/data-jobs",
        "/integration/api/pools/local/jobs/no/execute",
        "/integration/api/v1/data-pools/local/data-models/no/load/partial-sync",
    ],
)
@pytest.mark.parametrize(
    "body",
    [
        DEEP,
        b'{"sql": ' + DEEP + b"}",
        b'{"sql": "\\ud800", "id": "\\ud800", "name": "\\ud800"}',
        b'["\\ud800"]',
        b'{"sql": "SELECT \\u0000", "id": "\\u0000"}',
        b'{"id": ' + b"9" * 5000 + b"}",
        b'{"match": "\\u0000 /", "answer": {"status": ' + b"9" * 100 + b"}}",
        b'{"match": "* /", "answer": {"status": 500, "body": ' + b"[" * 200 + b"]" * 200 + b"}}",
        b"\xff",
    ],
)
def test_bodies_of_other_paths(shared_server: Server, path: str, body: bytes) -> None:
    assert 400 <= status_of(shared_server, spelled("POST", path, body, JSON)) < 500


@pytest.mark.parametrize(
    "path",
    [
        "/integration/api/pools/local/columns?tableName=%00",
        "/integration/api/pools/local/columns?tableName=%ff%fe&schemaName=%ed%a0%80",
        "/integration/api/pools/%00",
        "/integration/api/pools/%ed%a0%80/tables",
        "/integration/api/pools/local/data-models?limit=" + "9" * 5000,
        "/integration/api/pools/local/data-models?limit=99999999999999999999",
        "/integration/api/pools/local/logs/no/executions?limit=1&page=99999999999999999999",
        "/integration/api/pools/local/logs/executions?executionId=%00&id=%ff",
        "/_emulator/tables?name=%00",
        "/_emulator/tables?name=%ed%a0%80",
        PUSH + "/%00",
        PUSH + "/..%2f..%2f",
        "/integration/api/pools/local%2Ftables",
        "/a/../b",
        "//",
        "*",
        b"/\x01",
        b"/\xff",
        "/api/cloud?" + "a=1&" * 2000,
    ],
)
def test_paths_that_cannot_be(shared_server: Server, path: str | bytes) -> None:
    assert status_of(shared_server, spelled("GET", path)) < 500


@pytest.mark.parametrize(
    "header",
    [
        "Content-Type: multipart/form-data",
        "Content-Type: multipart/form-data; boundary=",
        "Content-Type: multipart/form-data; boundary=" + "x" * 5000,
        "Content-Type: text/csv",
        "Content-Type: application/json; charset=none",
        "Content-Encoding: gzip",
        "Expect: 100-continue",
        "Range: bytes=0-1",
        "Upgrade: websocket\r\nConnection: Upgrade",
        "X: " + "x" * 60_000,
        b"Content-Type: \xff",
        b"Accept: \xff",
        b"Cookie: \xff=\x01",
        b"X: \0",
        b"Authorization: \xff",
        b"Content-Length: 1\r\nTransfer-Encoding: chunked",
    ],
)
@pytest.mark.parametrize("path", [PUSH, PUSH + "/no/chunks/upserted", "/oauth2/token"])
def test_headers_that_are_odd(shared_server: Server, header: str | bytes, path: str) -> None:
    assert status_of(shared_server, spelled("POST", path, job_with(), header)) < 500


@pytest.mark.parametrize(
    "body",
    [
        b"grant_type=client_credentials&client_id=%ff%00&client_secret=%ed%a0%80",
        b"grant_type=%00&scope=%ff",
        b"\xff=\xff",
        b"&" * 100_000,
        b"a=1&" * 100_000,
    ],
)
def test_odd_token_requests(shared_server: Server, body: bytes) -> None:
    form = "Content-Type: application/x-www-form-urlencoded"
    assert status_of(shared_server, spelled("POST", "/oauth2/token", body, form)) in {400, 401}


@pytest.mark.parametrize("method", ["PUT", "PATCH", "HEAD", "OPTIONS", "TRACE", "MADE-UP", "post"])
def test_unknown_methods(shared_server: Server, method: str) -> None:
    assert status_of(shared_server, spelled(method, PUSH)) == 405


# Files by chance: the document can only call them bytes

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUES = st.one_of(
    TEXTS,
    st.sampled_from(["", "1", "-1", "1.5", "1,5", "1.234,5", "1e999", "nan", "true", "FALSE"]),
    st.sampled_from(["2024-02-30", "31.01.2024", "2024-01-31T10:00:00.000Z", "24:00:00"]),
    st.sampled_from(['"', '""', '"a', "\\", "\n", "\r", "\t", "\0", "'", "x" * 100, "9" * 20]),
)
SEPARATORS = st.sampled_from([",", ";", "\t", "|", "||", "~", "\0", "\n", "a", '"', "'", "é"])
MARKS = st.sampled_from(['"', "'", "\\", "|", "\0", "\n", "é", ","])
FORMATS = st.one_of(
    st.sampled_from(["yyyy-MM-dd", "dd.MM.yyyy", "yyyy-MM-dd'T'HH:mm:ss.SSSXXX", "HH:mm", ""]),
    st.sampled_from(["'", "''", "%Y", "yyyyyyyyyy", "EEE", "SSSSSSSSSSSS", "G", "[yyyy]"]),
    st.text("yMdHhmsSXZzaE'-/:. %[]", max_size=12),
)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "charSet": st.sampled_from(
            ["UTF-8", "utf-16", "latin1", "cp1252", "x", "", "rot13", "base64", "idna", "utf-7"]
        ),
        "separatorSequence": SEPARATORS,
        "quoteSequence": MARKS,
        "escapeSequence": MARKS,
        "lineEnding": st.sampled_from(["\n", "\r\n", "\r", "", "x", "CRLF"]),
        "decimalSeparator": st.sampled_from([",", ".", "", "ab", "'", "\\", "\0"]),
        "thousandSeparator": st.sampled_from([",", ".", "", " ", "'", "\\", "("]),
        "dateFormat": FORMATS,
    },
)
TYPES = st.sampled_from(["INTEGER", "DATE", "TIME", "DATETIME", "FLOAT", "BOOLEAN", "STRING"])


def push_file(push: Push, table: str, content: bytes, **fields: Any) -> None:
    """Push a file that may or may not fit; both are fine, a fault of the server is not."""
    created = push.try_create(table, **fields)
    assert created.status_code in {200, 400}, created.text
    if created.status_code == 400:
        return
    job = created.json()["id"]
    answer = push.upload(job, content)
    said = answer.text
    assert answer.status_code in {200, 400} or "validating the Parquet" in said, said
    executed = push.execute(job)
    assert executed.status_code == 200, executed.text

    def ended() -> dict[str, Any] | None:
        shown = push.get(job)
        return shown if shown["status"] in ENDED else None

    shown = eventually(ended, "the job ends")
    assert FAULT not in "".join(shown["logs"]).lower(), shown


@fuzz
@given(
    rows=st.lists(st.lists(VALUES, min_size=3, max_size=3), max_size=4),
    options=OPTIONS,
    types=st.lists(TYPES, min_size=3, max_size=3),
    job_type=st.sampled_from(["REPLACE", "REPLACE", "DELTA"]),
    keys=st.sampled_from([None, ["a"]]),
    glue=st.sampled_from([",", ";", "\t", "|"]),
)
def test_csv_by_chance(
    shared_server: Server,
    rows: list[list[str]],
    options: dict[str, str],
    types: list[str],
    job_type: str,
    keys: list[str] | None,
    glue: str,
) -> None:
    # Mostly the separator that the job names, so that something gets through.
    glue = options.get("separatorSequence", ",") if glue == "," else glue
    lines = [["a", "b", "c"], *rows]
    content = "\n".join(glue.join(line) for line in lines).encode()
    columns = [{"columnName": n, "columnType": t} for n, t in zip("abc", types, strict=True)]
    push_file(
        Push(shared_server),
        "csv_by_chance",
        content,
        type=job_type,
        fileType="CSV",
        keys=keys,
        csvParsingOptions=options,
        tableSchema={"columns": columns},
    )


OF_ANY_BITS = (
    *(pa.int8(), pa.uint8(), pa.int64(), pa.uint64(), pa.float16(), pa.float32(), pa.float64()),
    *(pa.decimal128(38, 10), pa.decimal256(60, 3), pa.date32(), pa.date64(), pa.binary(4)),
    *(pa.time32("ms"), pa.time64("ns"), pa.timestamp("s"), pa.timestamp("ns", "UTC")),
    *(pa.timestamp("us", "Asia/Tokyo"), pa.duration("ms")),
)
OTHERS = (
    *(pa.bool_(), pa.string(), pa.large_string(), pa.binary(), pa.null(), pa.list_(pa.int8())),
    *(pa.dictionary(pa.int8(), pa.string()), pa.struct([("x", pa.int8())])),
    *(pa.map_(pa.string(), pa.int8()), pa.month_day_nano_interval()),
)
ARROW = st.sampled_from([*OF_ANY_BITS, *OTHERS])


def of_bits(kind: pa.DataType, bits: bytes) -> pa.Array:
    """Return two values of any bits, where any bits are a value; else nulls."""
    if kind in OF_ANY_BITS:
        return pa.Array.from_buffers(kind, 2, [None, pa.py_buffer(bits)])
    return pa.array([None, None], type=kind)


@fuzz
@given(
    arrow=ARROW,
    other=ARROW,
    declared=st.one_of(st.none(), TYPES),
    names=st.one_of(
        st.sampled_from([["a", "b"], ["A", "b"], ["a", "A"]]),
        st.lists(TEXTS, min_size=2, max_size=2, unique=True),
    ),
    job_type=st.sampled_from(["REPLACE", "REPLACE", "DELTA"]),
    keyed=st.booleans(),
    bits=st.binary(min_size=64, max_size=64),
)
def test_parquet_by_chance(
    shared_server: Server,
    arrow: pa.DataType,
    other: pa.DataType,
    declared: str | None,
    names: list[str],
    job_type: str,
    keyed: bool,
    bits: bytes,
) -> None:
    columns = [of_bits(kind, bits) for kind in (arrow, other)]
    try:
        content = parquet(pa.Table.from_arrays(columns, names))
    except pa.ArrowException:
        return
    schema = declared and {"columns": [{"columnName": names[0], "columnType": declared}]}
    push_file(
        Push(shared_server),
        "parquet_by_chance",
        content,
        type=job_type,
        keys=[names[0]] if keyed else None,
        tableSchema=schema,
    )


@fuzz
@given(st.binary(max_size=200), st.integers(0, 400), st.sampled_from(["PARQUET", "CSV"]))
def test_broken_files(shared_server: Server, noise: bytes, at: int, kind: str) -> None:
    """A good file with something else in the midst of it."""
    good = (
        parquet({"id": [1, 2, 3], "s": ["a", "b", None]}) if kind == "PARQUET" else b"id,s\n1,a\n"
    )
    content = good[:at] + noise + good[at + len(noise) :]
    push_file(Push(shared_server), "broken", content, type="DELTA", fileType=kind)
