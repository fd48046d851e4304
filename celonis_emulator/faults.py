"""Faults that a test asks for: which call or job they meet, and what happens to it then.

Hides: how a rule is spelled and how its turns are counted. Guarantees: no chance and no clock: the
same calls in the same order meet the same faults; of several rules the first one that fires wins,
but each counts every call that it matches. Must not know: sockets, routes, push jobs.
"""

from __future__ import annotations

import difflib
import itertools
import re
import threading
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from celonis_emulator.refusals import sentence_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_PUSH: Final = "/*/api/v1/data-push/*/jobs"
_POOL: Final = "/integration/api/pools/*"
_MODEL: Final = "/integration/api/v1/data-pools/*/data-models/*"

CALLS: Final[dict[str, tuple[str, ...]]] = {
    "connect": ("GET /api/cloud",),
    "token": ("POST /oauth2/token",),
    "create_job": (f"POST {_PUSH}",),
    "list_jobs": (f"GET {_PUSH}",),
    "get_job": (f"GET {_PUSH}/*",),
    "upload_chunk": (f"POST {_PUSH}/*/chunks/*",),
    "list_chunks": (f"GET {_PUSH}/*/chunks",),
    "execute_job": (f"POST {_PUSH}/*",),
    "cancel_job": (f"POST {_PUSH}/*/cancel",),
    "delete_job": (f"DELETE {_PUSH}/*",),
    "list_tables": (f"GET {_POOL}/tables",),
    "list_columns": (f"GET {_POOL}/columns",),
    "load_model": (
        f"POST {_MODEL}/load",
        f"POST {_MODEL}/load/partial-sync",
        f"POST {_POOL}/data-models/*/reload",
    ),
    "load_status": (f"GET {_POOL}/data-models/*/load-history/load-info-sync",),
    "execute_data_job": (
        "POST /integration/api/*/data-pools/*/data-jobs/*/execute",
        f"POST {_POOL}/jobs/*/execute",
    ),
    "data_job_status": (f"GET {_POOL}/logs/status", f"GET {_POOL}/jobs/*"),
}
"""Names for the calls of a load's life; those of Data Push stand for both prefixes."""

_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# The server writes these itself; a second one would be a fault of ours.
_FRAMING: Final = frozenset({"content-length", "transfer-encoding"})
BODILESS: Final = frozenset({204, 205, 304})
_MAX_SECONDS: Final = 86_400
_MAX_DEPTH: Final = 100
_PLAIN: Final = (str, int, float, type(None))

Count = Annotated[int, Field(ge=0, strict=True)]


class BadFault(ValueError):  # noqa: N818
    """A fault that cannot be; ``place`` says where, ``sentence`` what is wrong."""

    def __init__(self, place: str, sentence: str) -> None:
        super().__init__(f"{place}: {sentence}" if place else sentence)
        self.place = place
        self.sentence = sentence


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Answer(_Part):
    """An answer in place of the real one."""

    status: Annotated[int, Field(ge=200, le=599, strict=True)]
    headers: dict[str, str] = {}
    body: Any = Field(None, description="text, or JSON; without one, what this status usually has")
    content_type: str | None = None

    @field_validator("headers")
    @classmethod
    def _headers_can_be_sent(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if not _HEADER_NAME.fullmatch(name) or not _sendable(value):
                raise ValueError(f"The header {name!r} cannot be sent.")
            if name.lower() in _FRAMING:
                raise ValueError(f"The header {name} is the server's own.")
        return headers

    @field_validator("content_type")
    @classmethod
    def _type_can_be_sent(cls, content_type: str | None) -> str | None:
        if content_type is not None and not _sendable(content_type):
            raise ValueError("The content type cannot be sent.")
        return content_type

    @field_validator("body")
    @classmethod
    def _body_can_be_shown(cls, body: Any) -> Any:
        if _depth(body) > _MAX_DEPTH:
            raise ValueError(f"The body is nested deeper than {_MAX_DEPTH} levels.")
        return body

    @model_validator(mode="after")
    def _status_may_have_it(self) -> Answer:
        if self.body is not None and self.status in BODILESS:
            raise ValueError(f"An answer {self.status} has no body.")
        return self


class Slow(_Part):
    """An answer that takes its time."""

    delay_seconds: Annotated[float, Field(ge=0, le=_MAX_SECONDS, allow_inf_nan=False)] = 0.0
    bytes_per_second: Annotated[int, Field(ge=1, strict=True)] | None = Field(
        None, description="how fast the body of the answer comes"
    )


class Cut(_Part):
    """A connection that ends without an answer, or within the body of one."""

    after_bytes: Count | None = Field(
        None, description="the call is done, and so much of the body of its answer comes"
    )


class JobEnd(_Part):
    """How executed push jobs on a table are made to end."""

    table: str = Field(description="its name, whatever its case; * and ? stand for anything")
    status: Literal["ERROR", "CANCELED"]
    after_chunks: Count | None = Field(
        None, description="so many chunks are applied, and stay; without it what the switches say"
    )


def _one_or_more(value: object) -> object:
    return [value] if isinstance(value, dict) else value


def _status_alone(value: object) -> object:
    return {"status": value} if isinstance(value, int) else value


def _cut_alone(value: object) -> object:
    return {} if value is True else value


class Fault(_Part):
    """What is to go wrong.

    Either calls (``match``) meet one of ``answer``, ``slow``, ``cut``, ``hang``, ``endless`` and
    ``tokens``, or executed push jobs meet ``job``.
    """

    match: str | None = Field(
        None,
        description="a method or *, and a path in which * stands for a part and ** for any number "
        f"of parts; or one of {', '.join(CALLS)}",
        examples=["POST /data-ingestion/**/chunks/*", "execute_job"],
    )
    skip: Count = Field(0, description="so many of them pass first")
    times: Count = Field(1, description="so many of them meet it then; 0 = for ever")
    when: Literal["before", "during", "after"] = Field(
        "before",
        description="before: the call does nothing; during: after the first piece of its body; "
        "after: what the call asks for is done",
    )
    answer: Annotated[
        Answer | None, BeforeValidator(_status_alone, json_schema_input_type=int | Answer | None)
    ] = Field(None, description="a status, or a whole answer")
    slow: Slow | None = None
    cut: Annotated[
        Cut | None,
        BeforeValidator(_cut_alone, json_schema_input_type=Literal[True] | Cut | None),
    ] = Field(None, description="true: the connection ends without an answer")
    hang: Literal[True] | None = Field(None, description="no answer until the client gives up")
    endless: Literal[True] | None = Field(None, description="200 with a body that never ends")
    tokens: Literal["die"] | None = Field(
        None, description="all OAuth tokens given so far die; without a match at once"
    )
    job: JobEnd | None = None

    @field_validator("match")
    @classmethod
    def _match_is_known(cls, match: str | None) -> str | None:
        if match is not None:
            _patterns(match)
        return match

    @model_validator(mode="after")
    def _makes_sense(self) -> Fault:
        effects = [name for name in _EFFECTS if getattr(self, name) is not None]
        if len(effects) != 1 and effects != ["answer", "slow"]:
            raise ValueError(f"Give one of {', '.join(_EFFECTS)}, or answer with slow.")
        if self.job is not None and (self.match is not None or self.when != "before"):
            raise ValueError("A job fault has no match and no when.")
        if self.match is None and effects[0] not in ("job", "tokens"):
            raise ValueError("Give a match: which calls meet the fault.")
        if self.when == "during" and effects not in (["answer"], ["cut"]):
            raise ValueError("Only an answer or a cut can come during a call.")
        if self.cut is not None and self.cut.after_bytes is not None and self.when != "before":
            raise ValueError("A cut with after_bytes has no when: the call is done.")
        return self

    @property
    def at_once(self) -> bool:
        """Whether it is done when it is set, and no call is waited for."""
        return self.tokens is not None and self.match is None

    def meets(self, method: str, path: str) -> bool:
        """Say whether it is about such a call."""
        return self.match is not None and any(
            pattern.fullmatch(f"{method} {path}") for pattern in _patterns(self.match)
        )

    def ends(self, table: str) -> bool:
        """Say whether it is about jobs on a table."""
        return self.job is not None and fnmatchcase(table.lower(), self.job.table.lower())


FaultList = Annotated[
    list[Fault], BeforeValidator(_one_or_more, json_schema_input_type=list[Fault] | Fault)
]
"""A list of faults, or a single one."""

_EFFECTS: Final = ("answer", "slow", "cut", "hang", "endless", "tokens", "job")
_GLOBS: Final = {"/**": "(?:/.*)?", "**": ".*", "*": "[^/]*"}


def _depth(value: Any) -> int:
    """Return how deep a JSON value is nested, or a number above the limit."""
    level, depth = [value], 0
    while level and depth <= _MAX_DEPTH:
        inner = (v.values() if isinstance(v, dict) else v for v in level)
        level = [v for values in inner if not isinstance(values, _PLAIN) for v in values]
        depth += 1
    return depth


def _sendable(value: str) -> bool:
    return all(" " <= letter <= "~" for letter in value) and value == value.strip()


@cache
def _patterns(match: str) -> tuple[re.Pattern[str], ...]:
    """Return what ``METHOD PATH`` may look like.

    Raises:
        ValueError: It is neither the name of a call nor a method and a path.
    """
    return tuple(_pattern(one) for one in CALLS.get(match, (match,)))


def _pattern(match: str) -> re.Pattern[str]:
    method, _, path = match.partition(" ")
    method, path = method.upper(), re.sub(r"/{2,}", "/", path.strip())
    if method not in (*_METHODS, "*") or not path.startswith(("/", "**")):
        near = difflib.get_close_matches(match, CALLS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        calls = ", ".join(CALLS)
        raise ValueError(f"A match is a method or *, a blank and a path, or one of {calls}.{hint}")
    pieces = re.split(r"(/\*\*(?=/|$)|\*\*|\*)", path.rstrip("/") or "/")
    spelled = "".join(_GLOBS.get(piece) or re.escape(piece) for piece in pieces)
    return re.compile(f"{'[A-Z]+' if method == '*' else method} {spelled}", re.DOTALL)


_FAULTS: Final = TypeAdapter(FaultList)


def parse(objects: object) -> tuple[Fault, ...]:
    """Return the faults of a set-up file or a command line: a list, or a single one.

    Raises:
        BadFault: One of them cannot be.
    """
    try:
        return tuple(_FAULTS.validate_python(objects))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        parts = [f"[{p}]" if isinstance(p, int) else f".{p}" for p in problem["loc"]]
        raise BadFault("".join(parts), sentence_of(problem["msg"])) from error


def of_tables(ends: Iterable[tuple[str, str]]) -> tuple[Fault, ...]:
    """Return the faults of (table, status) pairs: all jobs on those tables, for ever."""
    return tuple(
        Fault.model_validate({"job": {"table": _literal(table), "status": status}, "times": 0})
        for table, status in ends
    )


def _literal(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)


@dataclass
class _Armed:
    """A fault that was set, and its turns so far."""

    id: str
    fault: Fault
    matched: int = 0
    fired: int = 0
    last: str | None = None

    @property
    def spent(self) -> bool:
        return 0 < self.fault.times <= self.fired

    def fires(self) -> bool:
        """Count a match, and say whether it is its turn."""
        self.matched += 1
        return self.matched > self.fault.skip and not self.spent

    def shown(self) -> dict[str, Any]:
        fault = self.fault.model_dump(exclude_unset=True)
        if fault.get("cut") == {}:
            fault["cut"] = True
        return {
            "id": self.id,
            "fault": fault,
            "matched": self.matched,
            "fired": self.fired,
            "spent": self.spent,
            "last": self.last,
        }


class Faults:
    """The faults that are set; safe from several threads."""

    def __init__(self, initial: Iterable[Fault] = ()) -> None:
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._armed: list[_Armed] = []
        self.add(initial)

    def add(self, faults: Iterable[Fault]) -> None:
        """Set more faults, behind those that are set."""
        with self._lock:
            for fault in faults:
                # What is done at once has had its turn.
                done = int(fault.at_once)
                self._armed.append(_Armed(f"fault-{next(self._ids)}", fault, done, done))

    def shown(self) -> list[dict[str, Any]]:
        """List the faults in their order, with how often each was matched and fired."""
        with self._lock:
            return [armed.shown() for armed in self._armed]

    def remove(self, fault_id: str) -> bool:
        """Remove a fault; say whether there was one."""
        with self._lock:
            kept = [armed for armed in self._armed if armed.id != fault_id]
            found = len(kept) < len(self._armed)
            self._armed = kept
        return found

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._armed.clear()

    def of_call(self, method: str, path: str) -> Fault | None:
        """Count a call, and return what it meets."""
        return self._first(lambda fault: fault.meets(method, path), f"{method} {path}")

    def of_job(self, table: str) -> JobEnd | None:
        """Count an executed job on a table, and return how it is made to end."""
        met = self._first(lambda fault: fault.ends(table), f"job on {table}")
        return met.job if met else None

    def _first(self, meets: Callable[[Fault], bool], what: str) -> Fault | None:
        with self._lock:
            # All of them count it, whichever wins: the third call is the third one for each.
            firing = [armed for armed in self._armed if meets(armed.fault) and armed.fires()]
            if not firing:
                return None
            firing[0].fired += 1
            firing[0].last = what
            return firing[0].fault
