"""Which tables of the pool a run changes, noted before it changes them.

Hides how that is seen: a route that hands everything on to another one, and looks at what is
carried out and what comes back. Guarantees: a table is noted as owed to the data models before the
first of its jobs is executed. Must not know: how a table is pushed, what is done with the notes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from target_celonis.celonis import JobType
from target_celonis.publish_plan import TableKey

if TYPE_CHECKING:
    from target_celonis.publish_notes import PublishNotes
    from target_celonis.route import Listing, OpenJob, OpenPush, PushRoute, PushTask, Receipt
    from target_celonis.spool import Chunk

_decode_time = msgspec.json.Decoder(datetime).decode


@dataclass
class Changes:
    """What a run changed.

    Attributes:
        tables: The pool's tables that were pushed.
        rows: Rows of those that were replaced, and not pushed again since.
        fresh_as_of: When the newest record was extracted, where the tap says so.
    """

    tables: set[TableKey] = field(default_factory=set)
    rows: dict[TableKey, int] = field(default_factory=dict)
    fresh_as_of: datetime | None = None

    def note_extraction(self, time_extracted: bytes) -> None:
        """Take the JSON text of a record's time of extraction; any other JSON says nothing."""
        try:
            found = _decode_time(time_extracted)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        found = found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
        if self.fresh_as_of is None or found > self.fresh_as_of:
            self.fresh_as_of = found

    def note(self, table: TableKey, receipt: Receipt) -> None:
        """Take the receipt of a push."""
        if not (receipt.loaded_rows or receipt.deleted_rows):
            return
        self.tables.add(table)
        self.rows.pop(table, None)
        if receipt.task.type is JobType.REPLACE:
            self.rows[table] = receipt.loaded_rows


class WatchedRoute:
    """A route that notes what passes over it.

    Args:
        route: The way into Celonis.
        connection_id: The data connection that it pushes into.
        notes: Where tables are noted as owed.
        changes: Takes what was pushed.
    """

    def __init__(
        self, route: PushRoute, connection_id: str | None, notes: PublishNotes, changes: Changes
    ) -> None:
        self._route = route
        self._connection_id = connection_id
        self._notes = notes
        self._changes = changes

    def look(self) -> Listing:
        """Read what the pool holds."""
        return self._route.look()

    def open(self, task: PushTask, listing: Listing) -> OpenPush:
        """Check a table and make the jobs for it."""
        return self._route.open(task, listing)

    def send(self, job: OpenJob, chunk: Chunk) -> None:
        """Hand over one chunk."""
        self._route.send(job, chunk)

    def all_arrived(self, push: OpenPush) -> bool:
        """Return whether all chunks are surely there; else what was made anew wants them again."""
        return self._route.all_arrived(push)

    def wait_seconds(self, pushes: int) -> float:
        """Return how long it takes at least until so many pushes can be carried out."""
        return self._route.wait_seconds(pushes)

    def pace_seconds(self, pushes: int) -> float:
        """Return how far apart, at least, checkpoints of so many pushes are to be."""
        return self._route.pace_seconds(pushes)

    def commit(self, push: OpenPush) -> Receipt:
        """Note the table, then have the jobs carried out.

        Raises:
            LimitError: That cannot be noted; nothing was carried out.
        """
        table = TableKey.of(self._connection_id, push.task.plan.table)
        if push.jobs:
            try:
                self._notes.owe(table)
            except BaseException:
                self._route.abort(push)
                raise
        receipt = self._route.commit(push)
        self._changes.note(table, receipt)
        return receipt

    def abort(self, push: OpenPush) -> None:
        """Forget the jobs that were not carried out."""
        self._route.abort(push)
