"""The settings as users see them: one declaration for parser, ``--about``, README and Meltano.

Hides nothing. Guarantees: every setting has a kind, a sentence and, where there is one, a default;
a test compares this list with the documents. Must not know: where values come from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Setting:
    """One setting as users see it: the source of the parser, ``--about`` and the documents.

    Attributes:
        name: Its key in a configuration file.
        kind: ``string``, ``integer``, ``number``, ``boolean``, ``array`` or ``object``.
        description: One or two sentences.
        default: The value when none is given; None means there is none.
        options: The only values allowed, if limited.
        minimum: The least value, for numbers.
        maximum: The greatest value, for numbers.
        secret: Whether the value must never be shown.
        items: What a list holds.
        required: Whether a run cannot do without.
    """

    name: str
    kind: str
    description: str
    default: Any = None
    options: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    secret: bool = False
    items: str = "object"
    required: bool = False

    def json_schema(self) -> dict[str, Any]:
        """Return this setting as a property of a JSON schema."""
        schema: dict[str, Any] = {
            "type": [self.kind, "null"],
            "title": self.name.replace("_", " ").capitalize(),
            "description": self.description,
        }
        if self.kind == "array":
            schema["items"] = {"type": self.items}
        if self.default is not None:
            schema["default"] = self.default
        if self.options:
            schema["enum"] = [*self.options, None]
        if self.minimum is not None:
            schema["minimum"] = self.minimum
        if self.maximum is not None:
            schema["maximum"] = self.maximum
        if self.secret:
            schema["secret"] = True
            schema["writeOnly"] = True
        return schema


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "base_url",
        "string",
        "Address of the Celonis team, https://TEAM.REALM.celonis.cloud, or `embedded`: a local "
        "Celonis emulator is run for this run.",
        required=True,
    ),
    Setting(
        "embedded_database",
        "string",
        "DuckDB file that the embedded emulator keeps its tables in.",
        default="celonis.duckdb",
    ),
    Setting(
        "embedded_config",
        "string",
        "Set-up file of the embedded emulator: data models, data jobs, switches (see "
        "docs/emulator.md).",
    ),
    Setting(
        "data_pool_id",
        "string",
        "Id of the data pool, or the address the browser shows when the pool is open. The "
        "embedded emulator makes the pool (`local` when none is named).",
    ),
    Setting(
        "connection_id",
        "string",
        "Id of the data connection to push into; without it the tables are made in the pool's "
        "global schema.",
    ),
    Setting(
        "auth_method",
        "string",
        "How to log in: `api_key` (a user's), `app_key` (an application's), `oauth` (client "
        "credentials), or `auto`, which finds out.",
        default="auto",
        options=("auto", "api_key", "app_key", "oauth"),
    ),
    Setting("api_key", "string", "User API key or application key.", secret=True),
    Setting("oauth_client_id", "string", "Id of the OAuth client."),
    Setting("oauth_client_secret", "string", "Secret of the OAuth client.", secret=True),
    Setting(
        "oauth_scope",
        "string",
        "Scopes to ask for, separated by blanks; the OAuth client must have been given them.",
        default="integration.data-pools",
    ),
    Setting(
        "oauth_client_auth",
        "string",
        "How the OAuth client says who it is, as it was registered: `basic` "
        "(client_secret_basic) or `post` (client_secret_post).",
        default="basic",
        options=("basic", "post"),
    ),
    Setting(
        "ca_bundle",
        "string",
        "File with the certificate authorities to trust instead of the usual ones. Certificates "
        "are always verified.",
    ),
    Setting(
        "proxy",
        "string",
        "Address of the proxy, http://USER:PASSWORD@HOST:PORT; without it the usual environment "
        "variables (HTTPS_PROXY, NO_PROXY) are followed.",
        secret=True,
    ),
    Setting(
        "data_push_prefix",
        "string",
        "Path before /api/v1/data-push, or `auto`: the current one, then the older one.",
        default="auto",
    ),
    Setting(
        "load_method",
        "string",
        "`upsert`: a record replaces the row with its key (streams without keys append). "
        "`append-only`: each record becomes a row. `overwrite`: the stream replaces its table.",
        default="upsert",
        options=("upsert", "append-only", "overwrite"),
    ),
    Setting(
        "table_name",
        "string",
        "Name of a stream's table; `{stream}` stands for the stream's name.",
        default="{stream}",
    ),
    Setting(
        "streams",
        "array",
        "Rules for single streams, the first that matches counts: objects with `match` (a "
        "pattern with * and ?) and any of `table`, `load_method`, `key_properties`, "
        "`trust_end_of_input`, and `columns`: rules by property (a pattern), with any of `type`, "
        "`length`, `name`, `drop`.",
        default=[],
    ),
    Setting(
        "add_record_metadata",
        "boolean",
        "Add the Singer SDK's metadata columns (`_sdc_extracted_at`, `_sdc_received_at`, ...).",
        default=False,
    ),
    Setting(
        "stream_maps",
        "object",
        "Stream maps of the Singer SDK: filter, alias, remove, compute.",
    ),
    Setting("stream_map_config", "object", "Values that stream map expressions can use."),
    Setting("faker_config", "object", "Settings of `fake` in stream maps, if Faker is installed."),
    Setting(
        "flattening_enabled",
        "boolean",
        "Make columns of the properties of objects; needs `flattening_max_depth`.",
        default=False,
    ),
    Setting("flattening_max_depth", "integer", "How deep to flatten.", minimum=0),
    Setting(
        "flattening_max_key_length", "integer", "Longest name that flattening makes.", minimum=1
    ),
    Setting("flattening_separator", "string", "Put between the parts of a flattened name."),
    Setting(
        "trust_end_of_input",
        "boolean",
        "Take the end of the input as proof that an overwritten stream was read to its end. Only "
        "for taps that print neither `currently_syncing` nor ACTIVATE_VERSION.",
        default=False,
    ),
    Setting(
        "hard_delete",
        "boolean",
        "Delete the rows whose record has `_sdc_deleted_at`; otherwise that is a column like any "
        "other.",
        default=False,
    ),
    Setting(
        "process_activate_version_messages",
        "boolean",
        "Let ACTIVATE_VERSION replace the table of a stream that was sent in full: one whose "
        "records carry a version and whose SCHEMA has no `bookmark_properties`. Not with "
        "`append-only`.",
        default=True,
    ),
    Setting(
        "min_row_ratio",
        "number",
        "A table is not replaced when fewer rows than this share of those that it was replaced by "
        "the last time would be left; 0 = always replace.",
        default=0.5,
        minimum=0,
        maximum=1,
    ),
    Setting(
        "allow_shrink",
        "array",
        "Names of tables for which `min_row_ratio` does not count.",
        default=[],
        items="string",
    ),
    Setting(
        "schema_change",
        "string",
        "When a stream and its table in the pool differ: `evolve` does what the load method can "
        "(new columns, wider types), `freeze` stops before anything is uploaded.",
        default="evolve",
        options=("evolve", "freeze"),
    ),
    Setting(
        "oversize_string",
        "string",
        "A text that is longer than its column: `fail` stops before anything is uploaded, "
        "`truncate` cuts it and counts.",
        default="fail",
        options=("fail", "truncate"),
    ),
    Setting(
        "widen_columns",
        "boolean",
        "Push texts that are longer than their column with a greater length, and check afterwards "
        "that the column was widened. Only where a push is known to widen columns.",
        default=False,
    ),
    Setting(
        "create_missing_table",
        "string",
        "How a table that is not there yet is made: by the ordinary `delta` push, or by a first "
        "`replace` push.",
        default="delta",
        options=("delta", "replace"),
    ),
    Setting(
        "timestamp_encoding",
        "string",
        "Parquet encoding of date-times: `int96` (microseconds) or `millis`.",
        default="int96",
        options=("int96", "millis"),
    ),
    Setting(
        "chunk_size_mb",
        "integer",
        "Size of the Parquet chunks, in megabytes.",
        default=100,
        minimum=1,
        maximum=950,
    ),
    Setting(
        "checkpoint_interval_minutes",
        "number",
        "Push what was read and release its state after this many minutes, while reading goes "
        "on; 0 = only at the end. Overwritten streams are pushed at the end in any case.",
        default=30,
        minimum=0,
    ),
    Setting(
        "memory_limit_mb",
        "integer",
        "Upper bound for all buffers together, in megabytes.",
        default=400,
        minimum=64,
    ),
    Setting(
        "spool_dir",
        "string",
        "Directory where chunks wait until they are loaded; default: one of the user's own in "
        "the directory for temporary files.",
    ),
    Setting(
        "spool_limit_gb",
        "number",
        "How much may wait on disk, in gigabytes; default: 80 % of what is free at the start. "
        "Before it is full, streams that append or upsert are pushed early.",
        minimum=0.01,
    ),
    Setting(
        "parallel_uploads",
        "integer",
        "Chunks that are uploaded at the same time.",
        default=4,
        minimum=1,
        maximum=32,
    ),
    Setting(
        "converter_processes",
        "integer",
        "Processes beside the main one that convert records while it reads; default: two where "
        "two processor cores or more are to be had, once the tap proves to be the faster one, "
        "else none. `0` for none.",
        minimum=0,
        maximum=32,
    ),
    Setting(
        "submits_per_hour",
        "integer",
        "Push jobs that the runs of this machine may execute in a full UTC hour; Celonis allows a "
        "team 250, all its clients together.",
        default=200,
        minimum=1,
        maximum=250,
    ),
    Setting(
        "on_submit_limit",
        "string",
        "When they are used up: `wait` for the next hour, or `fail`.",
        default="wait",
        options=("wait", "fail"),
    ),
    Setting(
        "data_jobs",
        "array",
        "Data jobs to execute, in order, when all is loaded: objects with `id` (or the address the "
        "browser shows) and `mode`, `DELTA` (the default) or `FULL` (see docs/publish.md).",
        default=[],
    ),
    Setting(
        "data_models",
        "array",
        "Data models to reload then: objects with `id` (or the address), `reload` (`auto`, "
        "`partial` or `complete`) and, for a partial reload, `tables`.",
        default=[],
    ),
    Setting(
        "publish_on",
        "string",
        "When to execute data jobs and reload data models: after runs with `changes`, those owed "
        "from earlier runs too, or `always`.",
        default="changes",
        options=("changes", "always"),
    ),
    Setting(
        "wait_for_publish",
        "boolean",
        "Wait for the end of the last step; otherwise it is triggered and left.",
        default=True,
    ),
    Setting(
        "wait_timeout_minutes",
        "number",
        "How long one push job, data job or reload of a data model may take once it was executed.",
        default=120,
        minimum=0.01,
    ),
    Setting(
        "signal_grace_seconds",
        "number",
        "After SIGTERM or SIGINT: how long to wait for a push job that was executed already.",
        default=20,
        minimum=0,
    ),
    Setting(
        "report_path",
        "string",
        "File for a report of the run as JSON (see docs/report.md).",
    ),
)


def json_schema() -> dict[str, Any]:
    """Return the settings as a JSON schema, for ``--about``."""
    return {
        "type": "object",
        "properties": {setting.name: setting.json_schema() for setting in SETTINGS},
    }
