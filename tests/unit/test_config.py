"""Settings from files and the environment become one checked, frozen object."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import certifi
import pytest

from target_celonis.config import Secret, is_loopback, parse, read_files
from target_celonis.errors import SettingsError
from target_celonis.publish_rules import DataJobRule, DataModelRule, JobMode, Reload
from target_celonis.settings import SETTINGS, Setting, json_schema
from target_celonis.stream_rules import LoadMethod

EMBEDDED = {"base_url": "embedded"}
REMOTE = {
    "base_url": "https://team.eu-1.celonis.cloud",
    "data_pool_id": "pool-1",
    "api_key": "s3cr3t-k3y",
}


def refused(values: Any, environment: Any = None) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        parse(values, environment or {})
    return caught.value


# --- where a value comes from

# A value from a file, another from the environment, and what either becomes.
EVERY_SETTING: dict[str, tuple[Any, Any, str, Any]] = {
    "base_url": ("http://localhost:1", "http://localhost:1", "embedded", "embedded"),
    "embedded_database": ("a.duckdb", Path("a.duckdb"), "b.duckdb", Path("b.duckdb")),
    "embedded_config": ("a.yaml", Path("a.yaml"), "b.yaml", Path("b.yaml")),
    "data_pool_id": ("a", "a", "b", "b"),
    "connection_id": ("a", "a", "b", "b"),
    "auth_method": ("api_key", "api_key", "app_key", "app_key"),
    "api_key": ("a", "a", "b", "b"),
    "oauth_client_id": ("a", "a", "b", "b"),
    "oauth_client_secret": ("a", "a", "b", "b"),
    "oauth_scope": ("a", "a", "b c", "b c"),
    "oauth_client_auth": ("basic", "basic", "post", "post"),
    "ca_bundle": (certifi.where(), Path(certifi.where()), "/", Path("/")),
    "proxy": ("http://a:1", "http://a:1", "http://b:2", "http://b:2"),
    "data_push_prefix": ("/a", "/a", "b/", "/b"),
    "load_method": ("overwrite", LoadMethod.OVERWRITE, "append-only", LoadMethod.APPEND_ONLY),
    "table_name": ("a_{stream}", "a_{stream}", "b", "b"),
    "streams": ([{"match": "a"}], ["a"], '[{"match": "b"}]', ["b"]),
    "add_record_metadata": (False, False, "1", True),
    "stream_maps": ({"a": None}, {"a": None}, '{"b": {}}', {"b": {}}),
    "stream_map_config": ({"a": 1}, {"a": 1}, '{"b": 2}', {"b": 2}),
    "faker_config": ({"seed": 1}, {"seed": 1}, '{"seed": 2}', {"seed": 2}),
    "flattening_enabled": (False, False, "true", True),
    "flattening_max_depth": (0, 0, "3", 3),
    "flattening_max_key_length": (1, 1, "30", 30),
    "flattening_separator": ("a", "a", "__", "__"),
    "trust_end_of_input": (False, False, "true", True),
    "hard_delete": (False, False, "true", True),
    "process_activate_version_messages": (True, True, "0", False),
    "min_row_ratio": (0, 0, "0.9", 0.9),
    "allow_shrink": (["a"], ("a",), '["b", "c"]', ("b", "c")),
    "schema_change": ("evolve", "evolve", "freeze", "freeze"),
    "oversize_string": ("fail", "fail", "truncate", "truncate"),
    "widen_columns": (False, False, "yes", True),
    "create_missing_table": ("delta", "delta", "replace", "replace"),
    "timestamp_encoding": ("int96", "int96", "millis", "millis"),
    "chunk_size_mb": (1, 1_000_000, "950", 950_000_000),
    "checkpoint_interval_minutes": (0, 0, "0.5", 30.0),
    "memory_limit_mb": (64, 64_000_000, "65", 65_000_000),
    "spool_dir": ("/a", Path("/a"), "/b", Path("/b")),
    "spool_limit_gb": (0.5, 500_000_000, "20", 20_000_000_000),
    "parallel_uploads": (1, 1, "32", 32),
    "converter_processes": (0, 0, "32", 32),
    "submits_per_hour": (1, 1, "250", 250),
    "on_submit_limit": ("wait", "wait", "fail", "fail"),
    "data_jobs": (
        [{"id": "a"}],
        (DataJobRule("a", JobMode.DELTA),),
        '[{"id": "b", "mode": "FULL"}]',
        (DataJobRule("b", JobMode.FULL),),
    ),
    "data_models": (
        [{"id": "a"}],
        (DataModelRule("a", Reload.AUTO),),
        '[{"id": "b", "reload": "partial", "tables": ["t"]}]',
        (DataModelRule("b", Reload.PARTIAL, ("t",)),),
    ),
    "publish_on": ("changes", "changes", "always", "always"),
    "wait_for_publish": (True, True, "false", False),
    "wait_timeout_minutes": (0.01, 0.6, "2", 120.0),
    "signal_grace_seconds": (0, 0, "1.5", 1.5),
    "report_path": ("a.json", Path("a.json"), "b.json", Path("b.json")),
}
FIELDS = {
    "chunk_size_mb": "chunk_size_bytes",
    "checkpoint_interval_minutes": "checkpoint_interval_seconds",
    "memory_limit_mb": "memory_limit_bytes",
    "spool_limit_gb": "spool_limit_bytes",
    "wait_timeout_minutes": "wait_timeout_seconds",
}


OAUTH = {"oauth_client_id": "id", "oauth_client_secret": "s3cr3t-0auth"}
MAPPED = {"stream_maps": {"x": {}}, "flattening_enabled": True, "flattening_max_depth": 1}


def shown(values: dict[str, Any], environment: dict[str, str], name: str) -> Any:
    """Return what a setting becomes, with what it needs beside it."""
    base: dict[str, Any] = {} if name == "base_url" else dict(EMBEDDED)
    if "TARGET_CELONIS_BASE_URL" in environment or name == "base_url":
        base |= {"api_key": "k", "data_pool_id": "p"}
    if name.startswith("oauth"):
        base |= OAUTH | {"auth_method": "oauth"}
    if name in MAPPED or name.startswith(("flattening", "stream_map_config", "faker")):
        base |= MAPPED
    base.pop(name, None)
    config = parse(base | values, environment)
    if name.startswith("oauth"):
        assert config.oauth is not None
        client = config.oauth
        return {
            "oauth_client_id": client.client_id,
            "oauth_client_secret": client.secret.reveal(),
            "oauth_scope": client.scope,
            "oauth_client_auth": client.client_auth,
        }[name]
    if name in config.mapping:
        return config.mapping[name]
    value = getattr(config, FIELDS.get(name, name))
    if isinstance(value, Secret):
        return value.reveal()
    return [rule.match for rule in value] if name == "streams" else value


def test_every_setting_is_tried_below() -> None:
    assert set(EVERY_SETTING) == {setting.name for setting in SETTINGS}


@pytest.mark.parametrize("name", EVERY_SETTING)
def test_file_before_environment_before_default(name: str) -> None:
    in_file, from_file, in_environment, from_environment = EVERY_SETTING[name]
    environment = {f"TARGET_CELONIS_{name.upper()}": in_environment}
    assert shown({name: in_file}, {}, name) == from_file
    assert shown({}, environment, name) == from_environment
    assert shown({name: in_file}, environment, name) == from_file
    assert shown({name: None}, environment, name) == from_environment


def test_defaults() -> None:
    config = parse(EMBEDDED, {})
    assert config.embedded
    assert config.data_pool_id == "local"
    assert config.embedded_database == Path("celonis.duckdb")
    assert config.load_method is LoadMethod.UPSERT
    assert config.chunk_size_bytes == 100_000_000
    assert config.checkpoint_interval_seconds == 1800
    assert config.memory_limit_bytes == 400_000_000
    assert config.parallel_uploads == 4
    assert config.converter_processes is None
    assert config.wait_timeout_seconds == 7200
    assert config.signal_grace_seconds == 20
    assert config.timestamp_encoding == "int96"
    assert config.create_missing_table == "delta"
    assert not config.trust_end_of_input
    assert (config.connection_id, config.api_key, config.spool_dir) == (None, None, None)
    assert config.data_push_prefix is None


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("TRUE", True), ("1", True), ("yes", True), ("false", False), ("0", False),
     (" No ", False)],
)  # fmt: skip
def test_booleans_of_the_environment(text: str, value: bool) -> None:
    config = parse(EMBEDDED, {"TARGET_CELONIS_TRUST_END_OF_INPUT": text})
    assert config.trust_end_of_input is value


def test_an_empty_variable_is_none() -> None:
    config = parse(EMBEDDED, {"TARGET_CELONIS_CHUNK_SIZE_MB": "", "TARGET_CELONIS_API_KEY": ""})
    assert config.chunk_size_bytes == 100_000_000
    assert config.api_key is None


def test_other_variables_are_nobodys_business() -> None:
    environment = {
        "TARGET_CELONIS_UNKNOWN": "x",
        "CHUNK_SIZE_MB": "1",
        "target_celonis_api_key": "x",
    }
    assert parse(EMBEDDED, environment) == parse(EMBEDDED, {})


@pytest.mark.parametrize("name", ["connection_id"])
def test_an_empty_text_in_a_file_is_no_id(name: str) -> None:
    assert getattr(parse(EMBEDDED | {name: ""}, {}), name) is None


# --- what is refused


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("chunk_size", "chunk_size_mb"),
        ("api_keys", "api_key"),
        ("Base_url", "base_url"),
        ("datapoolid", "data_pool_id"),
        ("stream", "streams"),
    ],
)
def test_an_unknown_setting_is_answered_with_the_nearest(name: str, near: str) -> None:
    error = refused(EMBEDDED | {name: "v4lue"})
    assert error.code == "TC-SETTINGS-02"
    assert f"`{name}`" in str(error)
    assert f"`{near}`" in str(error)
    assert "v4lue" not in str(error)


def test_a_setting_like_no_other_is_refused_too() -> None:
    error = refused(EMBEDDED | {"zzzzqqq": 1})
    assert (error.code, "--about" in str(error)) == ("TC-SETTINGS-02", True)


WRONG = {
    "string": [5, True, [], {}, 1.5],
    "integer": ["x", True, 1.5, [], {}],
    "number": ["x", True, [], {}],
    "boolean": ["maybe", 1, 0, [], "true"],
    "array": ["x", 5, True, {}],
    "object": ["x", 5, True, []],
}


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_a_value_of_the_wrong_kind_is_refused(setting: Setting) -> None:
    for value in WRONG[setting.kind]:
        error = refused(EMBEDDED | {setting.name: value})
        assert error.code == "TC-SETTINGS-03"
        assert f"`{setting.name}`" in str(error)


@pytest.mark.parametrize(
    "setting", [s for s in SETTINGS if s.kind != "string"], ids=lambda setting: setting.name
)
def test_a_variable_of_the_wrong_kind_is_refused(setting: Setting) -> None:
    error = refused(EMBEDDED, {f"TARGET_CELONIS_{setting.name.upper()}": "m4ybe"})
    assert error.code == "TC-SETTINGS-03"
    assert f"`{setting.name}`" in str(error)
    assert "m4ybe" not in str(error)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("chunk_size_mb", 0),
        ("chunk_size_mb", -1),
        ("chunk_size_mb", 951),
        ("memory_limit_mb", 63),
        ("parallel_uploads", 0),
        ("parallel_uploads", 33),
        ("converter_processes", -1),
        ("converter_processes", 33),
        ("checkpoint_interval_minutes", -0.1),
        ("wait_timeout_minutes", 0),
        ("signal_grace_seconds", -1),
        ("wait_timeout_minutes", float("nan")),
        ("checkpoint_interval_minutes", float("nan")),
        ("auth_method", "basic"),
        ("load_method", "merge"),
        ("load_method", "UPSERT"),
        ("create_missing_table", ""),
        ("timestamp_encoding", "int64"),
    ],
)
def test_a_value_outside_its_range_is_refused(name: str, value: Any) -> None:
    error = refused(EMBEDDED | {name: value})
    assert error.code == "TC-SETTINGS-03"
    assert f"`{name}`" in str(error)


def test_whole_numbers_may_be_written_as_doubles() -> None:
    assert parse(EMBEDDED | {"chunk_size_mb": 2.0}, {}).chunk_size_bytes == 2_000_000


@pytest.mark.parametrize("name", ["data_pool_id", "api_key"])
@pytest.mark.parametrize("empty", [None, ""])
def test_what_a_tenant_needs_is_asked_for(name: str, empty: Any) -> None:
    error = refused(REMOTE | {name: empty})
    assert error.code == "TC-SETTINGS-04"
    assert f"`{name}`" in str(error)
    assert f"TARGET_CELONIS_{name.upper()}" in str(error)


@pytest.mark.parametrize("values", [{}, {"base_url": ""}])
def test_without_a_base_url_nothing_goes(values: dict[str, str]) -> None:
    error = refused(values)
    assert (error.code, "`base_url`" in str(error)) == ("TC-SETTINGS-04", True)


@pytest.mark.parametrize("name", OAUTH)
def test_an_oauth_client_is_complete(name: str) -> None:
    remote = {k: v for k, v in REMOTE.items() if k != "api_key"}
    values = remote | OAUTH | {"auth_method": "oauth"}
    assert parse(values, {}).oauth is not None
    error = refused(values | {name: None})
    assert (error.code, f"`{name}`" in str(error)) == ("TC-SETTINGS-04", True)
    assert "s3cr3t" not in str(error)


@pytest.mark.parametrize(
    ("more", "method"),
    [
        ({}, "auto"),
        (OAUTH | {"api_key": None}, "oauth"),
        (OAUTH, "auto"),
        (OAUTH | {"auth_method": "app_key"}, "app_key"),
    ],
)
def test_an_oauth_client_without_a_key_is_meant(more: dict[str, Any], method: str) -> None:
    config = parse(REMOTE | more, {})
    assert config.auth_method == method
    assert (config.oauth is not None) == (method == "oauth")


def test_without_celonis_nothing_of_it_is_needed() -> None:
    assert parse({}, {}, needs_celonis=False).load_method is LoadMethod.UPSERT


def test_a_bundle_that_is_not_there_is_named() -> None:
    error = refused(EMBEDDED | {"ca_bundle": "/no/such/file.pem"})
    assert error.code == "TC-SETTINGS-03"
    assert "`ca_bundle`" in str(error)


def test_flattening_needs_a_depth() -> None:
    error = refused(EMBEDDED | {"flattening_enabled": True})
    assert (error.code, "`flattening_max_depth`" in str(error)) == ("TC-SETTINGS-04", True)


def test_the_mapper_gets_nothing_when_nothing_is_to_be_mapped() -> None:
    assert parse(EMBEDDED | {"flattening_max_depth": 3, "stream_maps": {}}, {}).mapping == {}


# --- addresses


@pytest.mark.parametrize(
    ("text", "base_url"),
    [
        ("https://team.eu-1.celonis.cloud", "https://team.eu-1.celonis.cloud"),
        ("https://team.eu-1.celonis.cloud/", "https://team.eu-1.celonis.cloud"),
        ("  https://team.eu-1.celonis.cloud/ui/pools?x=1#y ", "https://team.eu-1.celonis.cloud"),
        ("team.eu-1.celonis.cloud", "https://team.eu-1.celonis.cloud"),
        ("team.eu-1.celonis.cloud/integration", "https://team.eu-1.celonis.cloud"),
        ("https://team.celonis.cloud:8443/x", "https://team.celonis.cloud:8443"),
        ("http://localhost:9000", "http://localhost:9000"),
        ("http://127.0.0.1:9000/", "http://127.0.0.1:9000"),
        ("http://[::1]:9000", "http://[::1]:9000"),
        ("HTTPS://Team.EU-1.Celonis.Cloud", "https://team.eu-1.celonis.cloud"),
        ("TEAM.EU-1.CELONIS.CLOUD/x", "https://team.eu-1.celonis.cloud"),
        ("https://team.eu-1.celonis.cloud:443", "https://team.eu-1.celonis.cloud"),
        ("https://team.eu-1.celonis.cloud:0443/ui", "https://team.eu-1.celonis.cloud"),
        ("https://team.eu-1.celonis.cloud:/", "https://team.eu-1.celonis.cloud"),
        ("team.eu-1.celonis.cloud:443", "https://team.eu-1.celonis.cloud"),
        ("https://team.eu-1.celonis.cloud:80", "https://team.eu-1.celonis.cloud:80"),
        ("http://LOCALHOST:80", "http://localhost"),
        ("http://localhost:443", "http://localhost:443"),
        ("https://[2001:DB8::1]:443/", "https://[2001:db8::1]"),
        ("https://[2001:DB8::1]:8443", "https://[2001:db8::1]:8443"),
        ("embedded", "embedded"),
        (" Embedded ", "embedded"),
    ],
)
def test_spellings_of_the_address(text: str, base_url: str) -> None:
    assert parse(REMOTE | {"base_url": text}, {}).base_url == base_url


@pytest.mark.parametrize(
    "text",
    [
        "https://",
        "ftp://team.celonis.cloud",
        "file:///etc/passwd",
        "https://user:p4ss@team.celonis.cloud",
        "https://:p4ss@team.celonis.cloud",
        "https://[p4ss",
        "https://team.celonis.cloud:p4ss",
        "https://team.celonis.cloud:99999",
        "http://team.celonis.cloud",
        "http://10.0.0.1",
        "http://localhost.p4ss.com",
        "http://127.p4ss.com",
        "http://127.0.0.1.p4ss.com",
    ],
)
def test_addresses_that_are_refused(text: str) -> None:
    error = refused(REMOTE | {"base_url": text})
    assert error.code == "TC-SETTINGS-03"
    assert "`base_url`" in str(error)
    assert "p4ss" not in str(error)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("128.0.0.1", False),
        ("127.evil.com", False),
        ("localhost.evil.com", False),
        ("0.0.0.0", False),  # noqa: S104  # not listened on
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("text", "pool"),
    [
        ("1b2c-3d", "1b2c-3d"),
        ("https://t.celonis.cloud/integration/ui/pools/1b2c-3d", "1b2c-3d"),
        (
            "https://t.celonis.cloud/integration/ui/pools/1b2c-3d/process-configurations?x=1",
            "1b2c-3d",
        ),
        ("https://t.celonis.cloud/ui/data-pools/1b2c-3d/", "1b2c-3d"),
        ("https://t.celonis.cloud/integration/ui#/pools/1b2c-3d/jobs", "1b2c-3d"),
        ("t.celonis.cloud/integration/ui/pools/1b2c-3d", "1b2c-3d"),
    ],
)
def test_the_pools_address_gives_its_id(text: str, pool: str) -> None:
    assert parse(REMOTE | {"data_pool_id": text}, {}).data_pool_id == pool


@pytest.mark.parametrize(
    "text", ["https://t.celonis.cloud/", "https://t.celonis.cloud/ui/pools/", "https://[x/pools/1"]
)
def test_an_address_without_a_pool_is_refused(text: str) -> None:
    error = refused(REMOTE | {"data_pool_id": text})
    assert (error.code, "`data_pool_id`" in str(error)) == ("TC-SETTINGS-03", True)


@pytest.mark.parametrize(
    ("text", "prefix"),
    [("auto", None), ("/integration", "/integration"), ("integration/", "/integration")],
)
def test_the_push_prefix(text: str, prefix: str | None) -> None:
    assert parse(EMBEDDED | {"data_push_prefix": text}, {}).data_push_prefix == prefix


# --- streams


def test_the_first_rule_that_matches_counts() -> None:
    rules = [
        {"match": "public-orders", "table": "O_{stream}", "load_method": "overwrite"},
        {"match": "public-*", "key_properties": ["a", "b"], "trust_end_of_input": True},
        {"match": "*", "table": "rest"},
    ]
    config = parse(EMBEDDED | {"streams": rules, "table_name": "raw_{stream}"}, {})
    orders = config.for_stream("public-orders")
    assert (orders.table, orders.load_method) == ("O_public-orders", LoadMethod.OVERWRITE)
    assert (orders.key_properties, orders.trust_end_of_input) == (None, False)
    items = config.for_stream("public-items")
    assert (items.table, items.load_method) == ("raw_public-items", LoadMethod.UPSERT)
    assert (items.key_properties, items.trust_end_of_input) == (("a", "b"), True)
    assert config.for_stream("other").table == "rest"


def test_without_a_rule_the_settings_for_all_count() -> None:
    config = parse(
        EMBEDDED
        | {"load_method": "overwrite", "trust_end_of_input": True, "streams": [{"match": "x"}]},
        {},
    )
    settings = config.for_stream("orders")
    assert (settings.table, settings.load_method) == ("orders", LoadMethod.OVERWRITE)
    assert (settings.key_properties, settings.trust_end_of_input) == (None, True)


def test_a_rule_may_say_no_where_the_setting_says_yes() -> None:
    rule = {"match": "*", "trust_end_of_input": False, "key_properties": []}
    config = parse(EMBEDDED | {"trust_end_of_input": True, "streams": [rule]}, {})
    assert config.for_stream("s").trust_end_of_input is False
    assert config.for_stream("s").key_properties == ()


@pytest.mark.parametrize(
    ("pattern", "stream", "fits"),
    [
        ("a*", "abc", True),
        ("a?c", "abc", True),
        ("a*", "Abc", False),
        ("abc", "abcd", False),
        ("*", "", True),
        ("a.c", "abc", False),
    ],
)
def test_patterns(pattern: str, stream: str, fits: bool) -> None:
    config = parse(EMBEDDED | {"streams": [{"match": pattern, "table": "T"}]}, {})
    assert (config.for_stream(stream).table == "T") is fits


@pytest.mark.parametrize(
    ("rule", "code", "word"),
    [
        ("x", "TC-SETTINGS-03", "match"),
        ({}, "TC-SETTINGS-03", "match"),
        ({"match": 5}, "TC-SETTINGS-03", "match"),
        ({"match": "*", "tabel": "x"}, "TC-SETTINGS-02", "`table`"),
        ({"match": "*", "table": ""}, "TC-SETTINGS-03", "`table`"),
        ({"match": "*", "table": 5}, "TC-SETTINGS-03", "`table`"),
        ({"match": "*", "load_method": "x"}, "TC-SETTINGS-03", "`overwrite`"),
        ({"match": "*", "load_method": []}, "TC-SETTINGS-03", "`load_method`"),
        ({"match": "*", "key_properties": "id"}, "TC-SETTINGS-03", "`key_properties`"),
        ({"match": "*", "key_properties": [1]}, "TC-SETTINGS-03", "`key_properties`"),
        ({"match": "*", "trust_end_of_input": "yes"}, "TC-SETTINGS-03", "`trust_end_of_input`"),
    ],
)
def test_a_faulty_rule_is_named_by_its_place(rule: Any, code: str, word: str) -> None:
    error = refused(EMBEDDED | {"streams": [{"match": "ok"}, rule]})
    assert error.code == code
    assert "`streams[1]`" in str(error)
    assert word in str(error)


# --- files


def test_later_files_win_and_env_is_no_file(tmp_path: Path) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    one.write_text(json.dumps({"api_key": "a", "table_name": "größe"}), encoding="utf-8")
    two.write_text(json.dumps({"api_key": "b"}), encoding="utf-8")
    assert read_files([str(one), "ENV", str(two)]) == {"api_key": "b", "table_name": "größe"}
    assert read_files(["ENV"]) == {}
    assert read_files([]) == {}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        (b"", "not valid JSON"),
        (b'{"api_key": "s3cr3t-k3y"\n x}', "not valid JSON (line 2)"),
        (b"[]", "JSON object"),
        (b'"s3cr3t-k3y"', "JSON object"),
        (b"\xff\xfe", "not valid JSON"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "config.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        read_files([str(path)])
    assert caught.value.code == "TC-SETTINGS-01"
    assert str(path) in str(caught.value)
    assert words in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="TC-SETTINGS-01"):
        read_files([str(tmp_path)])


# --- secrets


def test_a_secret_shows_itself_on_demand_only() -> None:
    proxy = {"proxy": "http://me:s3cr3t@proxy:1"}
    config = parse(REMOTE | OAUTH | proxy | {"auth_method": "oauth"}, {})
    secret = config.api_key
    assert secret is not None
    assert config.proxy is not None
    assert secret.reveal() == "s3cr3t-k3y"
    shown_as = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r:>40}",
        "{}".format(secret),  # noqa: UP032  # another way to the text
        repr([secret]),
        repr(config),
        str(config),
        repr(vars(config)),
    ]
    assert not any("s3cr3t" in text for text in shown_as)


@pytest.mark.parametrize("dump", [pickle.dumps, copy.copy, copy.deepcopy, json.dumps])
def test_a_secret_is_not_copied_out(dump: Any) -> None:
    with pytest.raises(TypeError):
        dump(Secret("s3cr3t-k3y"))


def test_a_secret_of_the_wrong_kind_is_not_shown() -> None:
    assert "12345678" not in str(refused(REMOTE | {"api_key": 12345678}))
    assert "s3cr3t" not in str(refused(REMOTE | {"api_key": ["s3cr3t-k3y"]}))


def test_the_schema_marks_secrets_and_knows_every_setting() -> None:
    properties = json_schema()["properties"]
    assert set(properties) == {setting.name for setting in SETTINGS}
    assert {name for name, schema in properties.items() if schema.get("secret")} == {
        "api_key",
        "oauth_client_secret",
        "proxy",
    }
    for setting in SETTINGS:
        assert properties[setting.name]["description"]
        assert properties[setting.name]["type"] == [setting.kind, "null"]
