"""Every behaviour of the emulator that can be chosen, with its default.

Hides: nothing; this is the one place to look up what can be switched and why.
Guarantees: a frozen value, made once at start; the command line options are derived from the
fields, so that a switch cannot exist without an option or the other way round.
Must not know: HTTP, DuckDB, how a switch is carried out. Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

ON_OFF = ("on", "off")


def _switch(default: Any, doc: str, fact: str, choices: Sequence[str] = ()) -> Any:
    """Declare one switch: its default, what it does, and the fact that it stands for."""
    return field(default=default, metadata={"doc": doc, "fact": fact, "choices": tuple(choices)})


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
    )
    strict_metadata: bool = _switch(
        default=False,
        doc="a DELTA file whose columns differ from the table's ends the job with ERROR, unless "
        "upsertStrategy is UPSERT_WITH_NULLIFICATION",
        fact="the strategies are known by name only",
    )
    listing_permission: bool = _switch(
        default=True,
        doc="off: table and column listings answer 403",
        fact="a push-only key has no permission to read the pool",
    )
    oauth_client_auth: str = _switch(
        "both",
        "how OAuth clients were registered to say who they are; the other way answers 401",
        "documented: a client is registered for client_secret_basic or client_secret_post",
        ("basic", "post", "both"),
    )
    oauth_scope: str = _switch(
        "integration.data-pools",
        "the scopes of every OAuth client, separated by blanks",
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
        "NAME=ERROR or NAME=CANCELED: executed jobs on that table end so and change nothing; "
        "repeatable",
        "a fault for tests",
    )

    def fault_for(self, table: str) -> str | None:
        """Return the status that a job on ``table`` is made to end with, if any."""
        wanted = table.lower()
        for name, status in self.fail_table:
            if name.lower() == wanted:
                return status
        return None
