"""Settings, parsed once into frozen objects.

Hides where a setting comes from (files, environment, default), how it is spelled there, and which
values it may take. Guarantees: what leaves here is complete, typed and checked; every fault is one
``SettingsError`` that names the setting, never its value when it is a secret. Nothing after this
reads a configuration dict or the environment. Must not know: what a setting is used for.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from target_celonis.browser_ids import POOL, id_of
from target_celonis.errors import SettingsError
from target_celonis.publish_rules import (
    DataJobRule,
    DataModelRule,
    data_job_rules,
    data_model_rules,
)
from target_celonis.redaction import SECRETS
from target_celonis.settings import SETTINGS, Setting
from target_celonis.stream_rules import LoadMethod, StreamRule, StreamSettings, stream_rule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

EMBEDDED = "embedded"
EMBEDDED_POOL_ID = "local"
ENVIRONMENT_PREFIX = "TARGET_CELONIS_"


class Secret:
    """A text that shows itself only on demand, and that no log line shows.

    Args:
        text: What is to be kept out of logs, errors and reprs.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text
        SECRETS.add(text)

    def reveal(self) -> str:
        """Return the text, for the one header that needs it."""
        return self._text

    def __repr__(self) -> str:
        """Return a mask."""
        return "Secret(***)"

    __str__ = __repr__

    def __reduce__(self) -> str:
        """Refuse to be pickled."""
        raise TypeError("a Secret is not pickled")


_BY_NAME = {setting.name: setting for setting in SETTINGS}


@dataclass(frozen=True)
class OAuthClient:
    """An OAuth client of the Celonis team.

    Attributes:
        client_id: Its id.
        secret: Its secret.
        scope: Scopes, separated by blanks.
        client_auth: ``basic`` or ``post``.
    """

    client_id: str
    secret: Secret
    scope: str
    client_auth: str


@dataclass(frozen=True)
class Config:
    """All settings, typed. Sizes in bytes, times in seconds; see ``SETTINGS`` for meanings.

    ``mapping`` holds what is set for the Singer SDK's mapper, under the SDK's own names.
    """

    base_url: str
    embedded_database: Path
    embedded_config: Path | None
    data_pool_id: str
    connection_id: str | None
    auth_method: str
    api_key: Secret | None
    oauth: OAuthClient | None
    ca_bundle: Path | None
    proxy: Secret | None
    data_push_prefix: str | None
    load_method: LoadMethod
    table_name: str
    streams: tuple[StreamRule, ...]
    add_record_metadata: bool
    mapping: Mapping[str, Any]
    hard_delete: bool
    process_activate_version_messages: bool
    trust_end_of_input: bool
    min_row_ratio: float
    allow_shrink: tuple[str, ...]
    schema_change: str
    oversize_string: str
    widen_columns: bool
    create_missing_table: str
    timestamp_encoding: str
    chunk_size_bytes: int
    checkpoint_interval_seconds: float
    memory_limit_bytes: int
    spool_dir: Path | None
    spool_limit_bytes: int | None
    parallel_uploads: int
    converter_processes: int | None
    submits_per_hour: int
    on_submit_limit: str
    data_jobs: tuple[DataJobRule, ...]
    data_models: tuple[DataModelRule, ...]
    publish_on: str
    wait_for_publish: bool
    wait_timeout_seconds: float
    signal_grace_seconds: float
    report_path: Path | None

    @property
    def embedded(self) -> bool:
        """Whether this run brings its own Celonis."""
        return self.base_url == EMBEDDED

    @property
    def publishes(self) -> bool:
        """Whether there is a data job to execute or a data model to reload."""
        return bool(self.data_jobs or self.data_models)

    def for_stream(self, stream: str) -> StreamSettings:
        """Apply the first rule that matches ``stream``."""
        rule = next((rule for rule in self.streams if rule.matches(stream)), None)
        rule = rule or StreamRule(match="*")
        template = rule.table or self.table_name
        trusted = rule.trust_end_of_input
        return StreamSettings(
            stream=stream,
            table=template.replace("{stream}", stream),
            load_method=rule.load_method or self.load_method,
            key_properties=rule.key_properties,
            trust_end_of_input=self.trust_end_of_input if trusted is None else trusted,
            columns=rule.columns,
        )


def read_files(paths: Sequence[str]) -> dict[str, Any]:
    """Read configuration files; later ones win.

    Args:
        paths: Files; ``ENV`` is skipped, since the environment is always read.

    Raises:
        SettingsError: A file is missing, unreadable, or no JSON object.
    """
    merged: dict[str, Any] = {}
    for path in paths:
        if path == "ENV":
            continue
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            reason = error.strerror or "it cannot be read"
            raise SettingsError(
                "TC-SETTINGS-01",
                f"The configuration file {path} cannot be read: {reason}.",
                "Give the path of a JSON file to --config.",
            ) from None
        except ValueError as error:
            place = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
            raise SettingsError(
                "TC-SETTINGS-01", f"The configuration file {path} is not valid JSON{place}."
            ) from None
        if not isinstance(content, dict):
            raise SettingsError(
                "TC-SETTINGS-01", f"The configuration file {path} does not hold a JSON object."
            )
        merged |= content
    return merged


def parse(
    values: Mapping[str, Any], environment: Mapping[str, str], *, needs_celonis: bool = True
) -> Config:
    """Turn files' content and environment into a ``Config``.

    Args:
        values: Settings by name, as read from files; these win.
        environment: ``TARGET_CELONIS_<NAME>`` is looked up for every setting; other names are
            ignored, since Meltano exports variables of its own.
        needs_celonis: Whether the run speaks to Celonis; else nothing of it need be set.

    Raises:
        SettingsError: A name is unknown, or a value is missing or of the wrong kind.
    """
    for name in values:
        if name not in _BY_NAME:
            near = difflib.get_close_matches(name, _BY_NAME, n=1)
            hint = f"Did you mean `{near[0]}`?" if near else "See --about for the settings."
            raise SettingsError("TC-SETTINGS-02", f"The setting `{name}` is not known.", hint)
    given = {setting.name: _value_of(setting, values, environment) for setting in SETTINGS}
    if not needs_celonis:
        given["base_url"] = EMBEDDED
    for setting in SETTINGS:
        if setting.required:
            _require(given, setting.name)
    if not given["table_name"].strip():
        raise SettingsError("TC-SETTINGS-03", "The setting `table_name` must not be blank.")
    base_url = _base_url(given["base_url"])
    method = _auth_method(given)
    if base_url == EMBEDDED:
        given["data_pool_id"] = given["data_pool_id"] or EMBEDDED_POOL_ID
    else:
        credentials = (
            ("oauth_client_id", "oauth_client_secret") if method == "oauth" else ("api_key",)
        )
        for name in ("data_pool_id", *credentials):
            _require(given, name, "With `base_url: embedded` the target runs without a Celonis.")
    pool_id = _pool_id(given["data_pool_id"] or "")
    return Config(
        base_url=base_url,
        embedded_database=Path(given["embedded_database"]),
        embedded_config=Path(given["embedded_config"]) if given["embedded_config"] else None,
        data_pool_id=pool_id,
        connection_id=given["connection_id"] or None,
        auth_method=method,
        api_key=Secret(given["api_key"]) if given["api_key"] else None,
        oauth=_oauth_client(given) if method == "oauth" else None,
        ca_bundle=_ca_bundle(given["ca_bundle"], base_url, environment),
        proxy=Secret(given["proxy"]) if given["proxy"] else None,
        data_push_prefix=_prefix(given["data_push_prefix"]),
        load_method=LoadMethod(given["load_method"]),
        table_name=given["table_name"],
        streams=tuple(stream_rule(rule, index) for index, rule in enumerate(given["streams"])),
        add_record_metadata=given["add_record_metadata"],
        mapping=_mapping(given),
        hard_delete=given["hard_delete"],
        process_activate_version_messages=given["process_activate_version_messages"],
        trust_end_of_input=given["trust_end_of_input"],
        min_row_ratio=given["min_row_ratio"],
        allow_shrink=_names_of_tables(given["allow_shrink"]),
        schema_change=given["schema_change"],
        oversize_string=given["oversize_string"],
        widen_columns=given["widen_columns"],
        create_missing_table=given["create_missing_table"],
        timestamp_encoding=given["timestamp_encoding"],
        chunk_size_bytes=given["chunk_size_mb"] * 1_000_000,
        checkpoint_interval_seconds=given["checkpoint_interval_minutes"] * 60.0,
        memory_limit_bytes=given["memory_limit_mb"] * 1_000_000,
        spool_dir=Path(given["spool_dir"]) if given["spool_dir"] else None,
        spool_limit_bytes=_gigabytes(given["spool_limit_gb"]),
        parallel_uploads=given["parallel_uploads"],
        converter_processes=given["converter_processes"],
        submits_per_hour=given["submits_per_hour"],
        on_submit_limit=given["on_submit_limit"],
        data_jobs=data_job_rules(given["data_jobs"], pool_id),
        data_models=data_model_rules(given["data_models"], pool_id),
        publish_on=given["publish_on"],
        wait_for_publish=given["wait_for_publish"],
        wait_timeout_seconds=given["wait_timeout_minutes"] * 60.0,
        signal_grace_seconds=given["signal_grace_seconds"],
        report_path=Path(given["report_path"]) if given["report_path"] else None,
    )


def _require(given: Mapping[str, Any], name: str, hint: str = "") -> None:
    if not given[name]:
        raise SettingsError(
            "TC-SETTINGS-04",
            f"The setting `{name}` is missing.",
            f"Put it into the file given to --config, or set {ENVIRONMENT_PREFIX}{name.upper()}. "
            f"{hint}".strip(),
        )


def _auth_method(given: Mapping[str, Any]) -> str:
    """Return the method to log in with; an OAuth client that is named without a key is meant."""
    method: str = given["auth_method"]
    if method == "auto" and given["oauth_client_id"] and not given["api_key"]:
        return "oauth"
    return method


def _oauth_client(given: Mapping[str, Any]) -> OAuthClient | None:
    if not given["oauth_client_id"]:
        return None  # with the embedded emulator, which has a key of its own
    return OAuthClient(
        client_id=given["oauth_client_id"],
        secret=Secret(given["oauth_client_secret"] or ""),
        scope=given["oauth_scope"],
        client_auth=given["oauth_client_auth"],
    )


def _ca_bundle(text: str | None, base_url: str, environment: Mapping[str, str]) -> Path | None:
    """Return the certificates to trust: of the setting, or of the usual variables.

    The variables are of no concern where no certificate is looked at, and reading a bundle takes
    a while.
    """
    named = {"the setting `ca_bundle`": text}
    if base_url.startswith("https:"):
        named |= {f"the variable {name}": environment.get(name) for name in _CA_BUNDLE_VARIABLES}
    for source, path in named.items():
        if not path:
            continue
        try:
            is_directory = Path(path).is_dir()
            ssl.create_default_context(
                cafile=None if is_directory else path, capath=path if is_directory else None
            )
        except OSError:  # an SSLError is one
            raise SettingsError(
                "TC-SETTINGS-03",
                f"{source[0].upper()}{source[1:]} names {path}, which holds no certificates.",
                "Give the path of a file with certificates in PEM form.",
            ) from None
        return Path(path)
    return None


_CA_BUNDLE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_MAPPING_NAMES = (
    "stream_maps",
    "stream_map_config",
    "faker_config",
    "flattening_enabled",
    "flattening_max_depth",
    "flattening_max_key_length",
    "flattening_separator",
)


def _mapping(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the SDK's mapper; none when nothing is to be mapped."""
    if given["flattening_enabled"] and given["flattening_max_depth"] is None:
        raise SettingsError(
            "TC-SETTINGS-04",
            "The setting `flattening_max_depth` is missing, which `flattening_enabled` needs.",
        )
    if not given["stream_maps"] and not given["flattening_enabled"]:
        return {}
    return {name: given[name] for name in _MAPPING_NAMES if given[name] is not None}


def _value_of(
    setting: Setting, values: Mapping[str, Any], environment: Mapping[str, str]
) -> Any:  # a setting is of any kind
    if values.get(setting.name) is not None:
        return _checked(setting, values[setting.name])
    text = environment.get(ENVIRONMENT_PREFIX + setting.name.upper(), "")
    if text:
        return _checked(setting, _from_text(setting, text))
    return setting.default


def _from_text(setting: Setting, text: str) -> Any:  # a setting is of any kind
    if setting.kind == "string":
        return text
    if setting.kind == "boolean":
        word = text.strip().lower()
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(
            word, text
        )
    try:
        return json.loads(text)
    except ValueError:
        return text


_KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}
_ARTICLES = {
    "integer": "a whole number",
    "array": "a list",
    "boolean": "true or false",
    "object": "a JSON object",
}


def _checked(setting: Setting, value: Any) -> Any:  # a setting is of any kind
    """Return ``value`` when it is of the setting's kind and within its bounds."""
    wanted = _ARTICLES.get(setting.kind, f"a {setting.kind}")
    if setting.kind == "integer" and isinstance(value, float) and value.is_integer():
        value = int(value)
    right_kind = isinstance(value, _KINDS[setting.kind])
    if isinstance(value, bool) and setting.kind != "boolean":
        right_kind = False
    if not right_kind:
        raise SettingsError("TC-SETTINGS-03", f"The setting `{setting.name}` must be {wanted}.")
    if setting.secret:
        value = value.strip()  # pasted with a line end behind it
        if not (value.isascii() and value.isprintable()):
            raise SettingsError(
                "TC-SETTINGS-03",
                f"The setting `{setting.name}` holds characters that cannot be part of it.",
                "Copy it again, from its first to its last character.",
            )
    if setting.options and value not in setting.options:
        choices = ", ".join(f"`{option}`" for option in setting.options)
        raise SettingsError(
            "TC-SETTINGS-03", f"The setting `{setting.name}` must be one of {choices}."
        )
    if setting.minimum is not None and not value >= setting.minimum:
        raise SettingsError(
            "TC-SETTINGS-03", f"The setting `{setting.name}` must be at least {setting.minimum:g}."
        )
    if setting.maximum is not None and not value <= setting.maximum:
        raise SettingsError(
            "TC-SETTINGS-03", f"The setting `{setting.name}` must be at most {setting.maximum:g}."
        )
    return value


def _base_url(text: str, name: str = "base_url") -> str:
    """Return scheme and host of any pasted Celonis address; ``name`` is the setting's."""
    if text.strip().lower() == EMBEDDED:
        return EMBEDDED
    try:
        parts = urlsplit(text.strip() if "://" in text else f"https://{text.strip()}")
        usable = parts.scheme in ("http", "https") and parts.port != 0 and "@" not in parts.netloc
    except ValueError:  # brackets that do not match, a port that is none
        usable = False
    if not usable or not parts.hostname:
        raise SettingsError(
            "TC-SETTINGS-03",
            f"The setting `{name}` is not an address.",
            "It looks like https://TEAM.REALM.celonis.cloud.",
        )
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise SettingsError(
            "TC-SETTINGS-03",
            f"The setting `{name}` must begin with https://; plain http is for this machine only.",
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = "" if parts.port in (None, _PORTS[parts.scheme]) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"  # one spelling, since runs are told apart by it


_PORTS = {"http": 80, "https": 443}


def is_loopback(host: str) -> bool:
    """Return whether ``host`` is this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _pool_id(text: str) -> str:
    """Return the id out of an id or a pool's address in the browser."""
    if "/" not in text:
        return text
    _base_url(text, "data_pool_id")
    return id_of(text, POOL, "The setting `data_pool_id`")


def _names_of_tables(names: Sequence[Any]) -> tuple[str, ...]:
    if not all(isinstance(name, str) for name in names):
        raise SettingsError(
            "TC-SETTINGS-03", "The setting `allow_shrink` must be a list of names of tables."
        )
    return tuple(names)


def _gigabytes(number: float | None) -> int | None:
    return None if number is None else int(number * 1_000_000_000)


def _prefix(text: str) -> str | None:
    """Return the Data Push prefix with a leading and no trailing slash; None for ``auto``."""
    return None if text == "auto" else "/" + text.strip("/")
