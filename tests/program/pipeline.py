"""A pipeline that obeys its state and may be killed, and what must hold for it then."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from target_celonis.journal import NAME, Step

from .harness import Ended, Running, Target, eventually, record, schema, state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .harness import Emulator

Table = list[tuple[int, int]]
"""Its rows: ``id``, and ``seq``, the number of the record in its stream or of the run."""

ROUND = 4
ROUNDS = 3
LAST = ROUND * ROUNDS
WHOLE_ROWS = 6

CHANGES = {
    "upserted": [(n, True) for n in (1, 2, 3, 1, 2, 4, 1, 5, 3, 1, 6, 2)],
    "deleting": [
        *[(1, True), (2, True), (3, True), (4, True)],
        *[(1, False), (5, True), (2, True), (3, False)],
        *[(1, True), (5, False), (3, True), (4, False)],
    ],
    "appended": [(n + 1, True) for n in range(LAST)],
}
"""What the tap sends of each stream, in order: an id, and whether it is there or deleted."""

SETTINGS: dict[str, Any] = {
    "checkpoint_interval_minutes": 0.0005,
    "hard_delete": True,
    "submits_per_hour": 250,
    "streams": [
        {"match": "*_whole", "load_method": "overwrite"},
        {"match": "*_appended", "load_method": "append-only"},
    ],
}

# --- the tap


def after(stream: str, records: int) -> dict[int, int]:
    """Return what a table holds after so many records of its stream."""
    held: dict[int, int] = {}
    for seq, (key, is_there) in enumerate(CHANGES[stream][:records], start=1):
        held.pop(key, None)
        if is_there:
            held[key] = seq
    return held


@dataclass
class Tap:
    """Three streams in rounds, a page of each in turn, and one in full: at the end, or first."""

    prefix: str
    whole_first: bool = False

    @property
    def tables(self) -> list[str]:
        return [self.table(stream) for stream in (*CHANGES, "whole")]

    def table(self, stream: str) -> str:
        return f"{self.prefix}_{stream}"

    def portions(self, given: dict[str, Any] | None, run: int) -> Iterator[list[bytes]]:
        """Return what is printed in one go each time, going on behind a state."""
        bookmarks: dict[str, int] = dict((given or {}).get("bookmarks", {}))
        number = {"type": "integer"}
        deleted_at = {"type": ["null", "string"], "format": "date-time"}
        properties: dict[str, Any] = {"id": number, "seq": number}
        portion = [
            schema(self.table(name), properties | more)
            for name, more in [
                ("upserted", {}),
                ("deleting", {"_sdc_deleted_at": deleted_at}),
                ("appended", {}),
                ("whole", {}),
            ]
        ]
        if self.whole_first:
            portion += self._whole(bookmarks, run)
        for end in range(ROUND, LAST + 1, ROUND):
            page = [line for name in CHANGES for line in self._page(name, bookmarks, end)]
            portion += page
            if end < LAST and page:
                yield portion
                portion = []
        if not self.whole_first:
            portion += self._whole(bookmarks, run)
        yield portion

    def _state(self, bookmarks: dict[str, int], syncing: str | None) -> bytes:
        return state({"bookmarks": dict(bookmarks), "currently_syncing": syncing})

    def _page(self, stream: str, bookmarks: dict[str, int], end: int) -> Iterator[bytes]:
        table = self.table(stream)
        if bookmarks.get(stream, 0) < end:
            yield self._state(bookmarks, table)
        for seq in range(bookmarks.get(stream, 0) + 1, end + 1):
            key, is_there = CHANGES[stream][seq - 1]
            gone = {} if is_there else {"_sdc_deleted_at": "2024-05-01T00:00:00Z"}
            yield record(table, id=key, seq=seq, **gone)
            bookmarks[stream] = seq
            if seq % 2 == 0:
                yield self._state(bookmarks, table)

    def _whole(self, bookmarks: dict[str, int], run: int) -> Iterator[bytes]:
        yield self._state(bookmarks, self.table("whole"))
        for key in range(WHOLE_ROWS):
            yield record(self.table("whole"), id=key, seq=run)
        bookmarks["whole"] = run
        yield self._state(bookmarks, None)


# --- the pipeline


@dataclass
class Pipeline:
    """The tap and the program, run again and again.

    Attributes:
        table: Reads a table; None where there is none.
        state: The last one that was printed.
        runs: How they ended.
        in_doubt: Whether a run was killed when a state may have been printed, or not.
        sent_once: Records of the stream that is appended which were never sent again.
    """

    target: Target
    tap: Tap
    table: Callable[[str], Table | None]
    state: dict[str, Any] | None = None
    runs: list[Ended] = field(default_factory=list)
    in_doubt: bool = False
    sent_once: int = LAST

    def run(
        self,
        *killed_at: str,
        moment: Callable[[Running], bool] = lambda _: False,
        pauses: bool = True,
    ) -> Ended:
        """Run once; the tap waits for each round to be loaded before it goes on."""
        if self.runs:
            self.sent_once = min(self.sent_once, self.bookmark("appended"))
        running = self.target.start(killed_at=killed_at, **SETTINGS)
        stdin = running.process.stdin
        assert stdin is not None

        def is_over() -> bool:
            if moment(running):
                running.process.kill()
                running.process.wait()
            return running.process.poll() is not None

        with suppress(BrokenPipeError):
            portions = list(self.tap.portions(self.state, len(self.runs) + 1))
            for portion in portions:
                running.write(*portion)
                if pauses and portion is not portions[-1]:
                    eventually(
                        lambda last=portion[-1]: is_over() or self._has_taken(running, last),
                        "a round is loaded",
                    )
            stdin.close()
        eventually(is_over, "the run ends")
        ended = running.wait(close=False)
        assert not ended.out or ended.out.endswith(b"\n")
        if ended.states:
            self.state = json.loads(ended.states[-1])
        self.runs.append(ended)
        self._check_state()
        return ended

    def _has_taken(self, running: Running, last_state: bytes) -> bool:
        """Go on repeating a state until it comes out, or all before it is known to be loaded."""
        wanted = json.loads(last_state)["value"]
        if self.tap.whole_first:  # no state comes out; each round is a push of what has keys
            jobs = self._jobs_on("upserted")
            pushed = [s for s in self.journal() if s["step"] == Step.DONE and s["job"] in jobs]
            begun = self.bookmark("upserted")
            return begun + len(pushed) * ROUND >= wanted["bookmarks"]["upserted"]
        running.write(last_state)
        return any(json.loads(line) == wanted for line in running.out().splitlines())

    def _jobs_on(self, stream: str) -> set[str]:
        created = [line for line in self.journal() if line["step"] == Step.JOB_CREATED]
        return {line["job"] for line in created if line["table"] == self.tap.table(stream)}

    def journal(self) -> list[dict[str, Any]]:
        """Return what the journals in the spool say; a line in the making is left out."""
        found = []
        for path in sorted(self.target.spool.glob(f"run-*/{NAME}")):
            with suppress(FileNotFoundError):
                found += [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
        return found

    def bookmark(self, stream: str) -> int:
        number: int = (self.state or {}).get("bookmarks", {}).get(stream, 0)
        return number

    def ids(self, stream: str) -> Counter[int]:
        return Counter(key for key, _ in self.table(self.tap.table(stream)) or [])

    def _check_state(self) -> None:
        """Check that everything before the last printed state is in the tables."""
        for stream in ("upserted", "deleting"):
            found = dict(self.table(self.tap.table(stream)) or [])
            behind = [after(stream, n) for n in range(self.bookmark(stream), LAST + 1)]
            for key in {key for key, _ in CHANGES[stream]}:
                assert found.get(key) in {held.get(key) for held in behind}, (stream, key)
        assert all(self.ids("appended")[key] for key, _ in self._before_state()), self.state
        whole = self.table(self.tap.table("whole")) or []
        assert not whole or len(whole) == WHOLE_ROWS
        assert {seq for _, seq in whole} in ({self.bookmark("whole")}, *self._later_wholes())

    def _later_wholes(self) -> list[set[int]]:
        started = range(self.bookmark("whole") + 1, len(self.runs) + 1)
        return [{run} for run in started] + [set()] * (not self.bookmark("whole"))

    def _before_state(self) -> list[tuple[int, bool]]:
        return CHANGES["appended"][: self.bookmark("appended")]

    def note_death(self) -> None:
        """Look at what a run left that was killed."""
        assert self.runs[-1].code == -signal.SIGKILL
        states = [line["step"] for line in self.journal() if line["step"].startswith("state ")]
        self.in_doubt |= states[-1:] == [Step.STATE_MEANT]

    def forget(self) -> None:
        """Lose the spool."""
        shutil.rmtree(self.target.spool)

    def check_tables(self) -> None:
        """Check that tables with keys, and replaced ones, are as if nothing had happened."""
        assert self.runs[-1].code == 0, self.runs[-1].err
        for stream in ("upserted", "deleting"):
            found = self.table(self.tap.table(stream))
            assert found is not None
            assert sorted(found) == sorted(after(stream, LAST).items())
        whole = self.table(self.tap.table("whole"))
        assert whole is not None
        assert sorted(whole) == [(key, len(self.runs)) for key in range(WHOLE_ROWS)]
        found_ids = self.ids("appended")
        assert set(found_ids) == set(after("appended", LAST))
        assert all(found_ids[key] == 1 for key in after("appended", self.sent_once))

    @property
    def doubled(self) -> int:
        """Return how many rows stand too often in the table that is appended to."""
        return self.ids("appended").total() - LAST

    def announced(self, *runs: Ended) -> dict[str, int]:
        """Return how many rows logs said to stand there twice, by push job; of all runs or some."""
        found: dict[str, int] = {}
        for ended in runs or self.runs:
            for line in ended.err.splitlines():
                said = re.search(r"appended (\d+) rows \(push job ([^)]+)\).* twice", line)
                if said:
                    assert self.tap.table("appended") in line
                    found[said[2]] = int(said[1])
        return found


def read(celonis: Emulator, name: str) -> Table | None:
    if celonis.count(name) is None:
        return None
    found = celonis.query(f'SELECT id, seq FROM local."{name}"')
    return [(int(key or 0), int(seq or 0)) for key, seq in found]


def endure(pipeline: Pipeline, celonis: Emulator, *, keep_spool: bool) -> None:
    """After a run was killed: run again, and check all that was promised."""
    tables = pipeline.tap.tables
    died = celonis.history(*tables)
    pipeline.note_death()
    meant = Counter(line["step"] for line in pipeline.journal())
    unnamed = meant[Step.JOB_MEANT] - meant[Step.JOB_CREATED]
    if not keep_spool:
        pipeline.forget()
    last = pipeline.run(pauses=False)
    pipeline.check_tables()

    now = {job["id"]: job for job in celonis.history(*tables)}
    for job in died:  # nothing of a dead run is executed
        assert now[job["id"]]["submits"] == job["submits"]
    left = [job for job in now.values() if not job["deleted"]]
    if keep_spool:
        # One that was created, and the kill came before its id could be noted.
        assert len(left) <= unnamed
        assert all(job["status"] == "NEW" for job in left)
        assert "knows of no earlier run" not in last.err or not died
    else:
        assert "knows of no earlier run" in last.err
        assert {job["id"] for job in left} <= {job["id"] for job in died}
        assert pipeline.announced(last) == {}
    for job in left:
        if job["status"] == "NEW":
            assert re.search(f"{job['id']} is NEW and in no journal .* left alone", last.err)
    if keep_spool:
        announced = sum(pipeline.announced().values())
        assert announced >= pipeline.doubled
        assert announced == pipeline.doubled or pipeline.in_doubt
