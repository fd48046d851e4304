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
    from collections.abc import Collection, Iterable

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
    """

    tables: set[TableKey] = field(default_factory=set)
    rows: dict[TableKey, int] = field(default_factory=dict)
    _extracted: dict[str, datetime] = field(default_factory=dict)
    _streams: dict[TableKey, str] = field(default_factory=dict)

    def note_extraction(self, stream: str, times: Iterable[bytes]) -> None:
        """Take the JSON texts of records' times of extraction; any other JSON says nothing."""
        for text in times:
            found = _time(text)
            if found is not None:
                self._extracted[stream] = max(found, self._extracted.get(stream, found))

    def fresh_as_of(self, tables: Collection[TableKey] | None = None) -> datetime | None:
        """Return when the newest record that was pushed was extracted, where the tap says so.

        Args:
            tables: Of these tables; None: of all.
        """
        pushed = dict(self._streams)
        if tables is not None:
            pushed = {table: pushed[table] for table in tables if table in pushed}
        times = [self._extracted[name] for name in pushed.values() if name in self._extracted]
        return max(times, default=None)

    def note(self, table: TableKey, receipt: Receipt) -> None:
        """Take the receipt of a push."""
        if not (receipt.loaded_rows or receipt.deleted_rows):
            return
        self.tables.add(table)
        self._streams[table] = receipt.task.plan.stream
        self.rows.pop(table, None)
        if receipt.task.type is JobType.REPLACE:
            self.rows[table] = receipt.loaded_rows


def _time(text: bytes) -> datetime | None:
    """Return a moment in UTC, which a time without a zone is taken to be in."""
    try:
        found = _decode_time(text)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (msgspec.DecodeError, UnicodeDecodeError, OverflowError):
        return None


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

    def end(self) -> None:
        """Have nothing more carried out; what is under way comes to its end."""
        self._route.end()

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
