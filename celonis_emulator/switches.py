"""Every behaviour of the emulator that can be chosen, with its default, and profiles of choices.

Hides: nothing; this is the one place to look up what can be switched and why.
Guarantees: a frozen value, made once at start; the options of the command line and the names in a
set-up file are derived from the fields, so that no switch exists without them or the other way
round. Must not know: HTTP, DuckDB, how a switch is carried out. Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ON_OFF = ("on", "off")
LENIENT, HARSH = "lenient", "harsh"


def _switch(
    default: Any, doc: str, fact: str, choices: Sequence[str] = (), *, harsh: Any = None
) -> Any:
    """Declare one switch.

    Args:
        default: What the profile ``lenient`` chooses.
        doc: What the switch does.
        fact: What it stands for.
        choices: The values there are; none where any will do.
        harsh: What the profile ``harsh`` chooses, where that differs.
    """
    about = {"doc": doc, "fact": fact, "choices": tuple(choices), "harsh": harsh}
    return field(default=default, metadata=about)


@dataclass(frozen=True)
class Switches:
    """All choices; the option of ``some_name`` is ``--some-name``."""

    conflict_scope: str = _switch(
        "team",
        "execute answers 409 while another job in this scope is QUEUED or RUNNING",
        "parallel submits were answered 409 across tables; how wide it reaches is inferred",
        ("team", "pool", "table", "off"),
    )
    submits_per_second: int = _switch(
        10,
        "accepted executes in any one second; 0 = no limit",
        "documented: 10 requests a second, per team, on the call that submits a job",
    )
    submits_per_hour: int = _switch(
        250,
        "accepted executes in a full UTC hour; 0 = no limit",
        "documented: 250 requests an hour, per team, the hour starting at the full UTC hour",
    )
    rate_limit_headers: bool = _switch(
        default=True,
        doc="execute answers carry x-ratelimit-limit, -remaining and -reset (seconds)",
        fact="described for the platform; the Data Push documentation says 429 has no content",
    )
    queued_seconds: float = _switch(
        0.0, "how long an executed job stays QUEUED", "real jobs take seconds to minutes"
    )
    running_seconds: float = _switch(
        0.0,
        "how long a job stays RUNNING before it touches the table",
        "real jobs take seconds to minutes",
    )
    max_chunk_bytes: int = _switch(
        1_000_000_000,
        "larger chunks are answered 413",
        "documented: 1 GB for each chunk; read here as 10^9 bytes",
    )
    max_name_bytes: int = _switch(
        128,
        "longer table and column names are refused (UTF-8 bytes); 0 = no limit",
        "the limit of identifiers in Vertica, which the pool's SQL follows",
    )
    data_push_prefixes: tuple[str, ...] = _switch(
        ("data-ingestion", "integration"),
        "which Data Push prefixes exist, separated by commas; the others answer 404",
        "both are in use; a tenant may lack one",
        ("data-ingestion", "integration"),
    )
    oversize: str = _switch(
        "truncate",
        "a text longer than its column is cut silently, fails the job, or widens the column",
        "the official client warns that longer values are cut without a message",
        ("truncate", "error", "widen"),
    )
    delta_missing_table: str = _switch(
        "create",
        "a DELTA job on a table that does not exist creates it, or ends ERROR",
        "third-party clients push DELTA from the first load on",
        ("create", "error"),
        harsh="error",
    )
    strict_metadata: bool = _switch(
        default=False,
        doc="a DELTA file whose columns differ from the table's ends the job with ERROR, unless "
        "upsertStrategy is UPSERT_WITH_NULLIFICATION",
        fact="the strategies are known by name only",
        harsh=True,
    )
    mixed_chunks: str = _switch(
        "accept",
        "whether one job takes upserted and deleted chunks; the second kind is refused with 400",
        "a chunk has a type of its own, but nobody is seen to mix them",
        ("accept", "refuse"),
        harsh="refuse",
    )
    key_only_deletes: str = _switch(
        "accept",
        "whether a deleted chunk may hold the key columns alone; if not, it must hold all columns "
        "of tableSchema or, without one, more than the keys, else it is refused with 400",
        "the official client's example deletes with a file that has another column",
        ("accept", "refuse"),
        harsh="refuse",
    )
    failed_jobs: str = _switch(
        "roll_back",
        "what a job that ends ERROR or CANCELED while RUNNING leaves: the table as it was, or the "
        "chunks before the failing one (the first half where no chunk fails)",
        "documented: chunks are applied one by one; what a failure leaves is not said",
        ("roll_back", "keep_first_chunks"),
        harsh="keep_first_chunks",
    )
    duplicate_keys: str = _switch(
        "last_wins",
        "several rows with one key in a job without duplicateRemovalColumn: the last one stays, or "
        "the job ends ERROR",
        "how the server chooses is not documented",
        ("last_wins", "error"),
    )
    unknown_fields: str = _switch(
        "ignore",
        "fields of a create body that are not known, nested ones too: ignored, or refused with 400",
        "clients of several ages are in use, and send different fields",
        ("ignore", "refuse"),
        harsh="refuse",
    )
    cancel: bool = _switch(
        default=True,
        doc="off: cancelling a push job answers 404",
        fact="that a job can be cancelled is documented, the path is not",
        harsh=False,
    )
    execute_not_new: str = _switch(
        "400",
        "the status of an execute of a job that is not NEW",
        "a job runs once; the answer to a second execute is not known",
        ("400", "409"),
    )
    created_status: str = _switch(
        "200",
        "the status of an answer that creates a push job",
        "documented: 200 or 201",
        ("200", "201"),
    )
    error_bodies: str = _switch(
        "json",
        "how refusals of the Celonis API are worded: as JSON, as plain text, or with no body",
        "several JSON shapes, plain text and empty bodies have been seen",
        ("json", "text", "empty"),
    )
    listing_permission: str = _switch(
        "push",
        "who may list a pool's tables and columns: who may read or push, only who may read, nobody",
        "the official client lists tables around every push; what right that takes is not known",
        ("push", "read", "none"),
        harsh="read",
    )
    hidden_pools: str = _switch(
        "403",
        "what a caller who has no right at all on a pool is answered there",
        "both answers are plausible: a refusal, or as if there were no such pool",
        ("403", "404"),
    )
    model_load_seconds: float = _switch(
        0.0,
        "how long a data model load is RUNNING before it copies the tables",
        "real loads take seconds to hours",
    )
    stale_load_answers: int = _switch(
        0,
        "how many answers of load-info-sync after a trigger still show the load before it",
        "a load is started in the background; whether its status is shown at once is not known",
        harsh=1,
    )
    second_load: str = _switch(
        "refuse",
        "a load of a data model that is being loaded is refused with 409, or waits for its turn",
        "the official client does not ask for one; the answer is not known",
        ("refuse", "queue"),
    )
    lost_dates_status: str = _switch(
        "WARNING",
        "how a data model load ends that made NULL of dates outside 1400 to 9999",
        "documented: such dates become NULL; whether anybody is told is not",
        ("WARNING", "SUCCESS"),
    )
    data_job_seconds: float = _switch(
        0.0,
        "how long a data job is RUNNING before its first statement",
        "real jobs take seconds to hours",
    )
    second_execution: str = _switch(
        "refuse",
        "an execute of a data job that is at work is refused with 409, or waits for its turn",
        "a message JOB_ALREADY_RUNNING is known, the answer is not",
        ("refuse", "queue"),
    )
    unrun_jobs_listed: bool = _switch(
        default=True,
        doc="off: logs/status lists a data job from its first execution on",
        fact="the official client cannot execute a job that is not listed",
    )
    oauth_client_auth: str = _switch(
        "both",
        "how OAuth clients were registered to say who they are, if the set-up file does not say; "
        "the other way answers 401",
        "documented: a client is registered for client_secret_basic or client_secret_post",
        ("basic", "post", "both"),
    )
    oauth_scope: str = _switch(
        "integration.data-pools",
        "the scopes of OAuth clients, if the set-up file does not say; separated by blanks",
        "documented: a client is given scopes, and asks for some of them",
    )
    token_seconds: int = _switch(
        899,
        "how long an OAuth token lives, as its answer says",
        "documented: some 15 minutes, in expires_in",
    )
    token_early_seconds: int = _switch(
        0,
        "how much earlier than its answer says an OAuth token dies",
        "a fault for tests: a token can be revoked",
    )
    fail_table: tuple[tuple[str, str], ...] = _switch(
        (),
        "NAME=ERROR or NAME=CANCELED: executed jobs on that table end so, and leave what "
        "failed-jobs says; repeatable",
        "a fault for tests",
    )


PROFILES: dict[str, dict[str, Any]] = {
    LENIENT: {},
    HARSH: {
        switch.name: switch.metadata["harsh"]
        for switch in fields(Switches)
        if switch.metadata["harsh"] is not None
    },
}
"""The values that a profile chooses, where they are not the defaults."""


def option(name: str) -> str:
    """Return what a switch is called on the command line, without the dashes, and in a file."""
    return name.replace("_", "-")


def chosen(profile: str, *explicit: Mapping[str, Any]) -> Switches:
    """Return the switches of a profile; explicit ones win over it, later ones over earlier."""
    values = dict(PROFILES[profile])
    for more in explicit:
        values |= more
    return Switches(**values)
