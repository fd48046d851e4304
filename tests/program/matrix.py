"""The fault matrix: which faults meet which calls, and the document that holds what comes of it.

Hides how the product of all dimensions is thinned out, and how the document is laid out.
Guarantees: what ``with_results`` writes ``read_document`` reads; no chance: the same cells each
time. Must not know: how a cell is run.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

METHODS = ("keyed", "append", "overwrite")
PROFILES = ("lenient", "harsh")
TIMES = {"once": 1, "three times": 3, "for ever": 0}
ALL = "all"

_PAGE = {"status": 200, "body": "<html>Log in</html>", "content_type": "text/html"}
_NOT_JSON = {"status": 200, "body": '{"id": ', "content_type": "application/json"}

REFUSALS: dict[str, dict[str, Any]] = {
    "400": {"answer": 400},
    "401": {"answer": 401},
    "403": {"answer": 403},
    "404": {"answer": 404},
    "409": {"answer": 409},
    "429": {"answer": 429},
    "429 with a wait": {"answer": {"status": 429, "headers": {"x-ratelimit-reset": "2"}}},
    "500 with a reference": {"answer": 500},
}
"""Answers of Celonis itself: it looked, and said no."""

LOST: dict[str, dict[str, Any]] = {
    "408": {"answer": 408},
    "500": {"answer": {"status": 500, "body": "Internal Server Error"}},
    "502": {"answer": {"status": 502, "body": "<html>Bad", "content_type": "text/html"}},
    "503": {"answer": 503},
    "504": {"answer": 504},
    "a web page": {"answer": _PAGE},
    "cut": {"cut": True},
    "hang": {"hang": True},
}
"""What does not say whether the request was done."""

FALSE: dict[str, dict[str, Any]] = {
    "broken JSON": {"answer": _NOT_JSON},
    "other JSON": {"answer": {"status": 200, "body": {"surprise": [1]}}},
    "empty answer": {"answer": {"status": 200, "body": ""}},
    "endless answer": {"endless": True},
}
"""Success by its status, and nothing of use in it."""

SLOW: dict[str, dict[str, Any]] = {"slow": {"slow": {"delay_seconds": 0.3}}}
HALF: dict[str, dict[str, Any]] = {"half an answer": {"cut": {"after_bytes": 4}}}
OAUTH: dict[str, dict[str, Any]] = {
    "401, by OAuth": {"answer": 401},
    "tokens die, by OAuth": {"tokens": "die"},
}
JOBS: dict[str, dict[str, Any]] = {
    f"{status}{words}": {"job": {"status": status} | more}
    for status in ("ERROR", "CANCELED")
    for words, more in (
        ("", {}),
        (", one chunk applied", {"after_chunks": 1}),
        (", all chunks applied", {"after_chunks": 99}),
    )
}
KINDS = {
    "refused": REFUSALS,
    "lost": LOST,
    "false": FALSE,
    "slow": SLOW,
    "half": HALF,
    "oauth": OAUTH,
    "job": JOBS,
}
FAULTS = {name: fault for faults in KINDS.values() for name, fault in faults.items()}


@dataclass(frozen=True)
class Situation:
    """A call at a certain place of a load.

    Attributes:
        name: What the document calls it.
        match: The call; empty for the end of a job.
        what: A sentence for the document.
        writes: Whether it changes something, so that a fault may come after it was done.
        answers: Whether its answer has a body.
        skip: Such calls that come before.
        methods: Load methods in which it occurs.
        by_method: Whether the load method may matter.
        also: Other faults that lead there.
        oauth: Whether it is about logging in.
        connection: Whether a data connection is named.
    """

    name: str
    match: str
    what: str
    writes: bool = False
    answers: bool = True
    skip: int = 0
    methods: tuple[str, ...] = METHODS
    by_method: bool = False
    also: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)
    oauth: bool = False
    connection: bool = False


_CREATE_LOST = {"match": "create_job", "when": "after", "cut": True}
_UPLOAD_LOST = {"match": "upload_chunk", "when": "after", "cut": True}
_EXECUTE_LOST = {"match": "execute_job", "when": "after", "cut": True}
_EXECUTE_REFUSED = {"match": "execute_job", "answer": 400}

SITUATIONS = (
    Situation("token", "token", "Asking for an OAuth token.", writes=True, oauth=True),
    Situation("list_jobs", "list_jobs", "The first call, before a line is read."),
    Situation(
        "connection",
        "GET /integration/api/pools/*/data-sources/*",
        "Looking at the data connection, before a line is read.",
        connection=True,
    ),
    Situation("list_tables", "list_tables", "Looking for the table, before its push."),
    Situation("list_jobs, push", "list_jobs", "Looking for other jobs, before a push.", skip=2),
    Situation(
        "list_columns",
        "list_columns",
        "Comparing the columns, before rows are added to a table.",
        methods=("keyed", "append"),
    ),
    Situation("create_job", "create_job", "Making a push job.", writes=True),
    Situation(
        "list_jobs, lost create",
        "list_jobs",
        "Looking for the job whose making was answered to nobody.",
        skip=3,
        also=(_CREATE_LOST,),
    ),
    Situation(
        "upload_chunk",
        "upload_chunk",
        "Uploading the second of several chunks.",
        writes=True,
        answers=False,
        skip=1,
        by_method=True,
    ),
    Situation(
        "list_chunks",
        "list_chunks",
        "Counting the chunks, after the answer to an upload was lost.",
        methods=("append", "overwrite"),
        also=(_UPLOAD_LOST,),
    ),
    Situation(
        "execute_job",
        "execute_job",
        "Executing the job.",
        writes=True,
        answers=False,
        by_method=True,
    ),
    Situation(
        "get_job, lost execute",
        "get_job",
        "Looking at the job after the answer to its execute was lost.",
        also=(_EXECUTE_LOST,),
    ),
    Situation("get_job", "get_job", "Looking at the job until it has ended."),
    Situation(
        "delete_job", "delete_job", "Deleting the job that is DONE.", writes=True, answers=False
    ),
    Situation(
        "delete_job, not executed",
        "delete_job",
        "Deleting the job whose execute was refused (400).",
        writes=True,
        answers=False,
        also=(_EXECUTE_REFUSED,),
    ),
    Situation("job", "", "The job that was executed ends badly.", by_method=True),
)
BY_NAME = {situation.name: situation for situation in SITUATIONS}


@dataclass(frozen=True, order=True)
class Cell:
    """One run with one fault."""

    situation: str
    fault: str
    when: str
    times: str
    method: str
    profile: str

    def __str__(self) -> str:
        fault = f"{self.fault}, {self.when}, {self.times}"
        return f"{self.situation}: {fault}, {self.method}, {self.profile}"

    def faults(self, table: str) -> list[dict[str, Any]]:
        """Return what the emulator is told."""
        there = BY_NAME[self.situation]
        given = FAULTS[self.fault]
        if "job" in given:
            return [{"job": given["job"] | {"table": table}}]
        fault = {"match": there.match, "skip": there.skip, "times": TIMES[self.times], **given}
        if "half" not in self.fault:
            fault["when"] = self.when
        return [*there.also, fault]


def _faults_of(there: Situation) -> Iterator[tuple[str, str]]:
    """Yield faults that make sense for a call, each with when they come."""
    if not there.match:
        yield from ((name, "after") for name in JOBS)
        return
    for name in (*REFUSALS, *LOST, *FALSE, *SLOW):
        if name == "slow" or not _is_a_lie(name, there, "before"):
            yield name, "before"
        if there.match == "upload_chunk" and name in LOST and name != "hang":
            yield name, "during"
        if there.writes and name not in REFUSALS:
            yield name, "after"
    if there.answers:
        yield "half an answer", "after"
    for name in OAUTH:
        yield name, "before"
    if there.writes:
        yield "tokens die, by OAuth", "after"


def _is_a_lie(name: str, there: Situation, when: str) -> bool:
    """Return whether it says that something was done which was not, and nothing could tell."""
    return name in FALSE and not there.answers and there.writes and when == "before"


def _times_of(there: Situation, name: str, when: str) -> tuple[str, ...]:
    """Return how often a fault comes: three times only where a call is tried more than once."""
    if not there.match:
        return ("once",)
    tried_again = name in LOST or name.startswith("429")
    return tuple(TIMES) if tried_again and when != "during" else ("once", "for ever")


def all_cells() -> list[Cell]:
    """Return the cells that are run.

    Where the load method cannot matter it goes round with the other dimensions, and so does the
    profile, but for jobs that end badly: there all is run.
    """
    found: list[Cell] = []
    turn = itertools.count()
    for there in SITUATIONS:
        for name, when in _faults_of(there):
            for times in _times_of(there, name, when):
                number = next(turn)
                methods = (
                    there.methods
                    if there.by_method
                    else (there.methods[(number + number // 3) % len(there.methods)],)
                )
                for place, method in enumerate(methods):
                    profile = PROFILES[(number + number // 2 + place) % 2]
                    profiles = (profile,) if there.match else PROFILES
                    found += (
                        Cell(there.name, name, when, times, method, each) for each in profiles
                    )
    return found


def sample() -> list[Cell]:
    """Return some of the cells, in which each value of each dimension occurs in some."""
    cells = [cell for cell in all_cells() if (cell.fault, cell.times) != ("hang", "for ever")]
    found: list[Cell] = []
    wanted = {value for cell in cells for value in _values(cell)}
    while wanted:
        best = max(cells, key=lambda cell: len(wanted & _values(cell)))
        found.append(best)
        wanted -= _values(best)
    return found


def _values(cell: Cell) -> set[tuple[str, ...]]:
    """Return what a cell is an example of."""
    kind = next(name for name, faults in KINDS.items() if cell.fault in faults)
    return {
        ("fault", cell.fault),
        ("situation and when", cell.situation, cell.when),
        ("kind and times", kind, cell.times),
        ("method and profile", cell.method, cell.profile),
    }


# --- the document

Outcomes = dict[Cell, str]
_HEAD = ("fault", "when", "how often")
_TITLE = "\n## The matrix\n"
_SECTION = re.compile(r"^### `([^`]+)`")


def with_results(text: str, there: Situation, outcomes: Outcomes) -> str:
    """Return a document with the table of one call made anew.

    Args:
        text: The document so far.
        there: The call.
        outcomes: What was seen of it.
    """
    head, _, tables = text.partition(_TITLE)
    sections = {}
    for section in re.split(r"^(?=### )", tables, flags=re.MULTILINE)[1:]:
        named = _SECTION.match(section)
        assert named is not None
        sections[named[1]] = section.strip()
    sections[there.name] = _section(there, outcomes)
    found = [sections[name] for name in BY_NAME if name in sections]
    return f"{head.rstrip()}\n{_TITLE}" + "".join(f"\n{section}\n" for section in found)


def _columns(there: Situation) -> tuple[str, ...]:
    if not there.match:
        return tuple(f"{m}, {profile}" for m in METHODS for profile in PROFILES)
    return there.methods if there.by_method else (ALL,)


def _column(cell: Cell) -> str:
    there = BY_NAME[cell.situation]
    if not there.match:
        return f"{cell.method}, {cell.profile}"
    return cell.method if there.by_method else ALL


def _section(there: Situation, outcomes: Outcomes) -> str:
    columns = _columns(there)
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    for cell, outcome in outcomes.items():
        if cell.situation == there.name:
            rows.setdefault((cell.fault, cell.when, cell.times), {})[_column(cell)] = outcome
    # What ends alike is told together: first the times of a fault, then its moments, then faults.
    merged: dict[tuple[str, str], dict[str, list[tuple[str, ...]]]] = {}
    for (fault, when, times), found in rows.items():
        ends = tuple(found[column] for column in columns)
        merged.setdefault((fault, when), {}).setdefault(times, []).append(ends)
    lines: dict[tuple[str, tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for (fault, when), by_times in merged.items():
        by_ends: dict[tuple[str, ...], list[str]] = {}
        for times, (ends,) in by_times.items():
            by_ends.setdefault(ends, []).append(times)
        for ends, often in by_ends.items():
            lines.setdefault((when, tuple(often), ends), []).append(fault)
    text = f"### `{there.name}`\n\n{there.what}\n\n"
    text += f"| {' | '.join((*_HEAD, *columns))} |\n"
    text += f"|{' --- |' * (len(_HEAD) + len(columns))}\n"
    for (when, often, ends), faults in lines.items():
        cells = ("; ".join(faults), when, ", ".join(often), *ends)
        text += f"| {' | '.join(cells)} |\n"
    return text.strip()


def read_document(text: str) -> dict[tuple[str, str, str, str, str], str]:
    """Return the outcomes of a document by situation, fault, when, times and column."""
    found: dict[tuple[str, str, str, str, str], str] = {}
    name = ""
    columns: tuple[str, ...] = ()
    for line in text.partition(_TITLE)[2].splitlines():
        if section := _SECTION.match(line):
            name = section[1]
        elif line.startswith("| fault |"):
            columns = tuple(cell.strip() for cell in line.strip("|").split("|"))[len(_HEAD) :]
        elif line.startswith("| ") and not line.startswith("| ---"):
            faults, when, often, *ends = (cell.strip() for cell in line.strip("|").split("|"))
            for fault, times in itertools.product(faults.split("; "), often.split(", ")):
                for column, end in zip(columns, ends, strict=True):
                    key = (name, fault, when, times, column)
                    assert key not in found, key
                    found[key] = end
    return found


def place_of(cell: Cell) -> tuple[str, str, str, str, str]:
    """Return where the document has a cell."""
    return cell.situation, cell.fault, cell.when, cell.times, _column(cell)
