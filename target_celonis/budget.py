"""The submits of this machine: so many in a full UTC hour, and ten in a second.

Hides the file in which all runs of a machine count together, how it is locked, and what is learned
from refusals. Guarantees: no more submits than the share in a UTC hour and than ten in a second,
across threads and processes; a process that dies at any moment, a damaged file or a clock set back
costs at most a wait of one hour; the lock is never held while anybody waits; the file holds one
hour. Must not know: push jobs, the network, or what is done about a pause.

    spool_dir/
      submits/
        acme.eu-1.celonis.cloud.txt    of the team with this host; may be read with `cat`
        acme.eu-1.celonis.cloud.lock   held for the moment of a change

What 429s taught is for plans alone (``per_hour``, ``seconds_for``). ``take`` obeys the share and
the pauses: to try once more in a later hour costs an answer, not to try might cost hours.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import math
import os
import re
import threading
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from target_celonis import limits
from target_celonis.errors import unwritable
from target_celonis.file_locks import try_lock
from target_celonis.owner_only import owner_only

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from target_celonis.clock import Clock

_HOUR_SECONDS = 3600
_MARGIN_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = _HOUR_SECONDS + _MARGIN_SECONDS

_SHORT_PAUSE_SECONDS = 10.0
"""A pause up to so long is not made for the hour's sake, even where it reaches over a full hour."""

_ROUNDING_SECONDS = 1e-6
"""More than what the sum of two times may be off by."""

_FILE_LIMIT_BYTES = 4 << 20
"""More than ten submits a second for an hour take; more is not read of a file that is not ours."""

_HEADER = (
    "# Push jobs that this machine executed in the present UTC hour, counted by target-celonis.\n"
)

_LOCK_SECONDS = 60.0
_LOCK_POLL_SECONDS = 0.005
"""How long the lock is waited for, which others hold for a moment only, and how often."""

_one_thread = threading.Lock()
"""For machines without fcntl; elsewhere the lock on the file would do."""


@dataclass(frozen=True)
class Pause:
    """Why no submit may be made now, and for how long.

    Attributes:
        seconds: What to wait before asking again.
        reason: Plain words for the log.
        whole_hour: Whether the submits of this hour are the reason, not the ten a second.
    """

    seconds: float
    reason: str
    whole_hour: bool


class SubmitBudget:
    """Counts the submits of all runs of this machine for one team.

    Args:
        spool_dir: Directory that the runs share; it must exist once a submit is taken.
        team: The host of the team.
        per_hour: Submits of this machine in a full UTC hour.
        clock: The time.
    """

    def __init__(self, spool_dir: Path, team: str, per_hour: int, clock: Clock) -> None:
        self._directory = spool_dir / "submits"
        name = _file_name(team)
        self._path = self._directory / f"{name}.txt"
        self._part = self._directory / f"{name}.part"
        self._lock = self._directory / f"{name}.lock"
        self._share = per_hour
        self._clock = clock

    def take(self) -> Pause | None:
        """Count one submit now; or count nothing, and say how long to wait before asking again.

        Who waits that long may submit then, unless others did meanwhile.

        Raises:
            LimitError: The spool directory cannot be written, or is gone.
        """
        with self._locked():
            now = self._clock.now()
            text = self._read()
            ledger = _aged(_parsed(text), now, self._share)
            pause = self._pause(ledger, now)
            if pause is None:
                ledger = replace(ledger, submits=(*ledger.submits, now))
            self._write(ledger, text)  # a pause too: times in the future are of now, for good
        return pause

    def refused(self, pause_seconds: float, *, told: bool) -> None:
        """Take note of a 429: no run of this machine submits before the pause is over.

        A pause for the rest of the hour teaches that no more can be counted on than what was used
        in it. Submits that were refused are among those: Celonis may count them too.

        Args:
            pause_seconds: How long.
            told: Whether the answer named the pause.

        Raises:
            LimitError: The spool directory cannot be written, or is gone.
        """
        with self._locked():
            now = self._clock.now()
            text = self._read()
            ledger = _aged(_parsed(text), now, self._share)
            block = _Block(now, now + max(0.0, min(pause_seconds, _LONGEST_PAUSE_SECONDS)), told)
            if block.is_for_hour(now):
                used = max(1, min(ledger.used(now), self._share))
                ledger = replace(ledger, learned=_Learned(used, _hour(now)))
            if ledger.block is None or block.until >= ledger.block.until:
                ledger = replace(ledger, block=block)
            self._write(ledger, text)

    def used(self) -> int:
        """Return the submits of this machine in the present UTC hour."""
        ledger, now = self._present()
        return ledger.used(now)

    def seconds_for(self, submits: int) -> float:
        """Return how long it takes at least until so many submits can have been made.

        A plan: it counts on ``per_hour`` and leaves out the seconds that ten a second take.

        Args:
            submits: How many from now on.
        """
        ledger, now = self._present()
        if submits <= 0:
            return 0.0
        per_hour = self._counted_on(ledger, now)
        start = max(now, ledger.block.until) if ledger.block else now
        rest = per_hour - ledger.used(now) if _hour(start) == _hour(now) else per_hour
        missing = submits - max(0, rest)
        if missing <= 0:
            return start - now
        return _start_of(_hour(start) + math.ceil(missing / per_hour)) - now

    @property
    def per_hour(self) -> int:
        """What can be counted on per hour: the share, or less where 429s taught so."""
        return self._counted_on(*self._present())

    def _counted_on(self, ledger: _Ledger, now: float) -> int:
        if ledger.learned is None:
            return max(1, self._share)
        return max(1, min(self._share, max(ledger.learned.submits, ledger.used(now))))

    def _pause(self, ledger: _Ledger, now: float) -> Pause | None:
        """Return the longest of the pauses that are due, so that another never follows it."""
        pauses = []
        if ledger.block is not None and ledger.block.until - now > _ROUNDING_SECONDS:
            pauses.append(
                Pause(
                    ledger.block.until - now,
                    "Celonis said that too many submits were made (429)",
                    whole_hour=ledger.block.is_for_hour(now),
                )
            )
        if ledger.used(now) >= self._share:
            what = f"{self._share} submits of this hour are"
            if self._share == 1:
                what = "one submit of this hour is"
            seconds = _start_of(_hour(now) + 1) - now
            pauses.append(Pause(seconds, f"the {what} used up", whole_hour=True))
        recent = sorted(at for at in ledger.submits if now - at < 1)
        if len(recent) >= limits.SUBMITS_PER_SECOND:
            # A millisecond more, since sums of times are rounded.
            seconds = recent[-limits.SUBMITS_PER_SECOND] + 1.001 - now
            reason = f"{limits.SUBMITS_PER_SECOND} submits were made within a second"
            pauses.append(Pause(seconds, reason, whole_hour=False))
        return max(pauses, key=lambda pause: pause.seconds, default=None)

    def _present(self) -> tuple[_Ledger, float]:
        """Return what is counted now, and the time; the file is always whole."""
        try:
            text = self._read()
        except OSError as error:
            raise unwritable(self._directory, error) from None
        now = self._clock.now()
        return _aged(_parsed(text), now, self._share), now

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep all other threads and processes out; the system lets go for a process that died."""
        try:
            with _one_thread:
                self._directory.mkdir(mode=0o700, exist_ok=True)
                fd = os.open(self._lock, os.O_CREAT | os.O_RDWR, 0o600)
                try:
                    _wait_for(fd)
                    yield
                finally:
                    os.close(fd)
        except OSError as error:
            raise unwritable(self._directory, error) from None

    def _read(self) -> str:
        """Return the file's text; none where there is none, or where it is of somebody else."""
        try:
            with self._path.open("rb") as file:
                return file.read(_FILE_LIMIT_BYTES).decode("utf-8", "replace")
        except (FileNotFoundError, PermissionError):
            return ""

    def _write(self, ledger: _Ledger, known: str) -> None:
        """Put a new file in the place of the old one, unless they are the same."""
        text = _text(ledger)
        if text == known:
            return
        with open(self._part, "w", encoding="utf-8", opener=owner_only) as file:
            file.write(text)
        self._part.replace(self._path)


# --- what is counted


@dataclass(frozen=True)
class _Block:
    """A refusal of the server, and until when nothing is submitted."""

    at: float
    until: float
    told: bool

    def is_for_hour(self, now: float) -> bool:
        """Return whether it takes the rest of the present hour, and not by chance."""
        is_short = self.until - self.at <= _SHORT_PAUSE_SECONDS
        return not is_short and _hour(self.until) > _hour(now)


@dataclass(frozen=True)
class _Learned:
    """What refusals taught: so many submits an hour; hours up to this one were looked at."""

    submits: int
    hour: int


@dataclass(frozen=True)
class _Ledger:
    """What the file says."""

    submits: tuple[float, ...] = ()
    block: _Block | None = None
    learned: _Learned | None = None

    def used(self, now: float) -> int:
        """Return the submits in the present hour."""
        return sum(_hour(at) == _hour(now) for at in self.submits)


def _hour(seconds: float) -> int:
    """Return the number of the full UTC hour."""
    return math.floor(seconds / _HOUR_SECONDS)


def _start_of(hour: int) -> float:
    """Return when the first submit of an hour is made: clocks differ a little."""
    return hour * _HOUR_SECONDS + _MARGIN_SECONDS


def _aged(ledger: _Ledger, now: float, share: int) -> _Ledger:
    """Return what of a ledger counts now.

    Args:
        ledger: As it was found.
        now: The present.
        share: What learning recovers to.
    """
    there = [at for at in ledger.submits if at <= now + _HOUR_SECONDS]
    past = sum(_hour(at) < _hour(now) for at in there)
    # Those of the last second count for the ten a second, in whatever hour they were made.
    submits = tuple(min(at, now) for at in there if _hour(at) >= _hour(now) or now - at < 1)
    return _Ledger(submits, _aged_block(ledger.block, now), _grown(ledger, past, now, share))


def _aged_block(block: _Block | None, now: float) -> _Block | None:
    """Return a pause as it is after the clock was set back; None where nothing hangs on it."""
    if block is None or block.at > now + _HOUR_SECONDS:
        return None
    seconds = min(block.until - block.at, _LONGEST_PAUSE_SECONDS)
    if block.at > now:
        return _Block(now, now + seconds, block.told)
    if seconds < block.until - block.at:
        block = replace(block, until=block.at + seconds)
    # One of the present hour is kept: what was learned does not grow for an hour with a refusal.
    return block if block.until > now or _hour(block.at) == _hour(now) else None


def _grown(ledger: _Ledger, past: int, now: float, share: int) -> _Learned | None:
    """Return what was learned, a little more for each hour that passed without a refusal.

    Args:
        ledger: As it was found.
        past: Submits in it of an hour that has passed.
        now: The present.
        share: What it grows to; then nothing is learned any more.
    """
    learned = ledger.learned
    if learned is None or learned.hour > _hour(now) + 1:
        return None
    hours = _hour(now) - 1 - learned.hour
    if ledger.block is not None and learned.hour < _hour(ledger.block.at) < _hour(now):
        hours -= 1
    submits = max(learned.submits, past)
    while hours > 0 and submits < share:
        submits += max(1, submits // 10)
        hours -= 1
    if submits >= share:
        return None
    return _Learned(submits, max(learned.hour, _hour(now) - 1))


# --- the file


def _file_name(team: str) -> str:
    """Return a name that is the team's host where that can be one."""
    host = team.casefold()
    safe = re.sub(r"[^a-z0-9._-]", "_", host)[:80]
    if safe == host and safe:
        return safe
    return f"{safe or 'team'}-{hashlib.sha256(host.encode()).hexdigest()[:8]}"


def _text(ledger: _Ledger) -> str:
    """Return the file's text: each line a time in seconds, and for people the same at its end."""
    lines = [f"submit {at!r} {_iso(at)}\n" for at in ledger.submits]
    if block := ledger.block:
        said = "told" if block.told else "guessed"
        lines.append(f"refused {block.at!r} {said} {block.until!r} {_iso(block.until)}\n")
    if learned := ledger.learned:
        hour = learned.hour * _HOUR_SECONDS
        lines.append(f"learned {hour} {learned.submits} {_iso(hour)}\n")
    return _HEADER + "".join(lines)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _parsed(text: str) -> _Ledger:
    """Read a file's text; lines that are none of ours, or not whole, count for nothing."""
    submits: list[float] = []
    block: _Block | None = None
    learned: _Learned | None = None
    for line in text.splitlines():
        if not line.endswith("Z"):
            continue
        with contextlib.suppress(ValueError):
            match line.split(" "):
                case ["submit", at, _]:
                    submits.append(_seconds(at))
                case ["refused", at, "told" | "guessed" as said, until, _]:
                    block = _Block(_seconds(at), _seconds(until), said == "told")
                case ["learned", hour, count, _]:
                    learned = _Learned(int(count), _hour(_seconds(hour)))
    return _Ledger(tuple(submits), block, learned)


def _seconds(text: str) -> float:
    """Read a time.

    Raises:
        ValueError: It is none.
    """
    seconds = float(text)
    if not math.isfinite(seconds):
        raise ValueError(text)
    return seconds


def _wait_for(fd: int) -> None:
    """Take the lock of a file as soon as it is free."""
    end = time.monotonic() + _LOCK_SECONDS
    while not try_lock(fd):
        if time.monotonic() > end:  # a process that was stopped while it held the lock
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        time.sleep(_LOCK_POLL_SECONDS)  # real time: the lock is of other processes
