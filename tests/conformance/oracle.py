"""What Singer messages must come to, read independently of the loader.

Hides nothing of the rules: each is a few plain lines, written from `docs/types.md` and the
promises, to be read beside them. Guarantees: shares no code with `target_celonis`; values are taken
from their own JSON text. Knows one push at the end of the run, no stream maps, no column rules.
It is longer than other modules, since it has to stand alone.
"""

from __future__ import annotations

import datetime as dt
import gzip
import hashlib
import json
import re
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from json.decoder import scanstring  # type: ignore[attr-defined]  # there, though not listed
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

TEXTS = ("string", "json")
KEYS_AS_TEXT = ("string", "integer", "boolean", "date")
LENGTHS = (255, 1000, 4000, 16250)
DELETED_AT = "_sdc_deleted_at"


class Refused(Exception):  # noqa: N818  # an outcome, no failure
    """The run ends with a code."""

    def __init__(self, exit_code: int, code: str) -> None:
        super().__init__(exit_code, code)
        self.exit_code = exit_code
        self.code = code


@dataclass
class Table:
    """A table in the pool.

    Attributes:
        kinds: Of its columns, by name, in their order.
        lengths: Of its texts, in characters, by name.
    """

    kinds: dict[str, str] = field(default_factory=dict)
    lengths: dict[str, int] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Counts:
    read: int = 0
    loaded: int = 0
    merged: int = 0
    deleted: int = 0
    superseded: int = 0
    not_loaded: int = 0


@dataclass
class Outcome:
    """The end of a run.

    Attributes:
        exit_code: Of the program.
        error: The code of its last words.
        tables: Those of the pool, by name.
        state: The last one printed, as the tap wrote it.
        counts: By stream.
        jobs: Tables that are pushed into, with the type of each push job; deletes are a job too.
    """

    exit_code: int
    error: str | None
    tables: dict[str, Table]
    state: str | None
    counts: dict[str, Counts]
    jobs: list[tuple[str, str]]


@dataclass(frozen=True)
class Rules:
    """The settings that matter here."""

    method: str = "upsert"
    hard_delete: bool = False
    trust_end_of_input: bool = False
    activate_version: bool = True
    makes_by_replace: bool = False


# --- JSON text

_ESCAPE = re.compile(r'\\u[dD][89abAB]..\\u[dD][c-fC-F]..|\\u[dD][89a-fA-F]..|\\.|"|-?Infinity|NaN')
_decode_at = json.JSONDecoder().raw_decode


def members(text: str) -> dict[str, str]:
    """Return the JSON text of each member of an object; of two with one name, the last."""
    found: dict[str, str] = {}
    at = _blanks(text, 0)
    if text[at : at + 1] != "{":
        raise ValueError(text[:20])
    at = _blanks(text, at + 1)
    while text[at] != "}":
        name, at = scanstring(text, at + 1)
        start = _blanks(text, _blanks(text, at) + 1)
        _, at = _decode_at(text, start)
        found[name] = text[start:at]
        at = _blanks(text, at)
        if text[at] == ",":
            at = _blanks(text, at + 1)
    return found


def _blanks(text: str, at: int) -> int:
    while text[at : at + 1] in (" ", "\t", "\r", "\n"):
        at += 1
    return at


def mended(text: str) -> str:
    """Return a line with halves of surrogate pairs as U+FFFD, and null for what is no number."""
    inside = False

    def token(match: re.Match[str]) -> str:
        nonlocal inside
        found = match.group()
        if found == '"':
            inside = not inside
        elif not inside:
            return "null"
        elif re.fullmatch(r"\\u[dD][89a-fA-F]..", found):
            return r"\ufffd"
        return found

    return _ESCAPE.sub(token, text)


# --- JSON schema


def kind_of(schema: Any, root: dict[str, Any]) -> tuple[str, int]:
    """Return the kind of column for a property's schema, and its `maxLength` (0: none)."""
    claims = {claim for claim in _claims(schema, root, ()) if claim[0] != "null"}
    types = {name for name, _, _ in claims}
    formats = {form for name, form, _ in claims if name == "string"}
    longest = max((length for _, _, length in claims), default=0)
    if types in ({"integer"}, {"boolean"}, {"number"}):
        return types.pop(), longest
    if types == {"integer", "number"}:
        return "number", longest
    if types == {"string"} and formats in ({"date"}, {"date-time"}):
        return str(formats.pop()), longest
    if types == {"string"} and formats <= {"x-singer.decimal", "singer.decimal"}:
        return "number", longest
    plain = {"string", "integer", "number", "boolean"}
    return ("string" if "string" in types <= plain else "json"), longest


SPEAKING = {"type", "$ref", "anyOf", "oneOf", "allOf", "enum", "const"}
_Claim = tuple[str, str | None, int]


def _claims(schema: Any, root: dict[str, Any], seen: tuple[str, ...]) -> set[_Claim]:
    """Return the types that a schema allows, each with a format and a longest text."""
    anything: set[_Claim] = {("any", None, 0)}
    if not isinstance(schema, dict):
        return anything
    if isinstance(reference := schema.get("$ref"), str):
        target: Any = root
        for step in reference.removeprefix("#").split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")  # noqa: PLW2901  # JSON Pointer
            target = target.get(step) if isinstance(target, dict) else None
        if reference in seen or target is None:
            return anything
        return _claims(target, root, (*seen, reference))
    types = schema.get("type", [])
    types = [types] if isinstance(types, str) else types
    if not SPEAKING & set(schema) and {"format", "maxLength", "pattern", "contentEncoding"} & set(
        schema
    ):
        types = ["string"]
    length = schema.get("maxLength")
    length = length if isinstance(length, int) and 0 < length <= LENGTHS[-1] else 0
    claims: set[_Claim] = {
        (name, schema.get("format"), length) if name == "string" else (name, None, 0)
        for name in types
    }
    of_all = [part for part in schema.get("allOf", []) if SPEAKING & set(part)]
    # An alternative that names no type allows any, unless types are named around it.
    of_any = [*schema.get("anyOf", []), *schema.get("oneOf", [])]
    silent_too = not claims and not of_all
    for part in [*of_all, *(part for part in of_any if silent_too or SPEAKING & set(part))]:
        claims |= _claims(part, root, seen)
    if not claims:
        values = [*schema.get("enum", []), *([schema["const"]] if "const" in schema else [])]
        claims = {(_type_of(value), None, 0) for value in values}
    return claims or anything


def _type_of(value: Any) -> str:
    names = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
    return names.get(type(value), "any")


# --- names


def legal(name: str) -> str:
    """Return a name that Celonis takes."""
    cleaned = re.sub(r"[^\w-]", "_", name) or "_"
    return cleaned if len(cleaned.encode()) <= 128 else _suffixed(cleaned, name)


def _suffixed(cleaned: str, name: str) -> str:
    suffix = "_" + hashlib.sha1(name.encode()).hexdigest()[:4]  # noqa: S324  # no secret
    kept = cleaned
    while len((kept + suffix).encode()) > 128:
        kept = kept[:-1]
    return kept + suffix


def column_names(properties: list[str]) -> dict[str, str]:
    """Return the column of each property: in a collision, one that is legal keeps its name."""
    taken = {"_celonis_change_date"}
    names = {}
    for wave in ("legal", "cleaned", "suffixed"):
        for name in sorted(properties, key=str.encode):
            wanted = legal(name) if wave != "suffixed" else _suffixed(legal(name), name)
            free = wanted.casefold() not in taken
            if name not in names and (wave != "legal" or wanted == name) and free:
                names[name] = wanted
                taken.add(wanted.casefold())
    return names


# --- values

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_MOMENT = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(:\d\d)?(?:\.(\d+))?)?"
    r"\s*(?:(Z|UTC)|([+-])(\d\d):?(\d\d)?:?(\d\d)?)?(?:\+00:00)?",
    re.ASCII,
)
_WORDS = {"true": True, "t": True, "yes": True, "y": True, "1": True, "1.0": True}
_WORDS |= {"false": False, "f": False, "no": False, "n": False, "0": False, "0.0": False}


def value_of(kind: str, raw: str) -> Any:
    """Return what a value's JSON text is in a column of some kind.

    Raises:
        Refused: It fits no rule.
    """
    if raw == "null":
        return None
    is_text = raw.startswith('"')
    if kind == "json":
        return raw
    said = json.loads(raw) if is_text else raw
    if kind == "string":
        return said
    if is_text and not said.strip():
        return None
    try:
        return _READ[kind](said.strip(), is_text)
    except (ValueError, KeyError, InvalidOperation):
        raise Refused(4, "TC-INPUT-08") from None


def _integer(said: str, is_text: bool) -> int | None:
    if said in ("true", "false") and not is_text:
        return int(said == "true")
    if not _NUMBER.fullmatch(said):
        raise ValueError
    number = Decimal(said)
    if number.adjusted() > 40:
        return None
    if number != int(number):
        raise ValueError
    return int(number) if -(2**63) <= number < 2**63 else None


def _number(said: str, is_text: bool) -> float | None:
    if said in ("true", "false") and not is_text:
        return float(said == "true")
    if said.lower().lstrip("+-") in ("nan", "inf", "infinity"):
        return None
    if not _NUMBER.fullmatch(said):
        raise ValueError
    is_whole_zero = said == "-0" and not is_text  # which has no sign
    number = 0.0 if is_whole_zero else float(said)
    return None if number in (float("inf"), float("-inf")) else number


def _boolean(said: str, _is_text: bool) -> bool:
    return _WORDS[said.lower()]


def _moment(said: str, is_text: bool) -> dt.datetime:
    match = _MOMENT.fullmatch(said)
    if match is None or not is_text:
        raise ValueError
    day, minutes, seconds, fraction, _, sign, *offset = match.groups()
    local = dt.datetime.fromisoformat(f"{day}T{minutes or '00:00'}{seconds or ':00'}")
    local += dt.timedelta(microseconds=int((fraction or "0")[:6].ljust(6, "0")))
    hours, more_minutes, more_seconds = (int(part or 0) for part in offset)
    east = dt.timedelta(hours=hours, minutes=more_minutes, seconds=more_seconds)
    try:
        return local + east if sign == "-" else local - east
    except OverflowError:
        return dt.datetime.max if local.year > 1 else dt.datetime.min  # noqa: DTZ901  # all is UTC


def _day(said: str, is_text: bool) -> dt.date:
    _moment(said, is_text)
    return dt.date.fromisoformat(said[:10])


_READ = {
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "date-time": _moment,
    "date": _day,
}


def _is_exact(kind: str, raw: str) -> bool:
    """Return whether a value of a key is all in its column."""
    said = str(json.loads(raw)) if raw.startswith('"') else raw
    if kind == "date-time":
        return not re.search(r"\.\d{6}0*[1-9]", said)
    is_plain = kind == "number" and _NUMBER.fullmatch(said.strip())
    return not is_plain or Decimal(said.strip()) == Decimal(repr(float(said)))


def meet(one: str, other: str) -> str:
    """Return the kind of a column that held one kind and then another."""
    meetings = {frozenset({"integer", "number"}): "number"}
    meetings[frozenset({"date", "date-time"})] = "date-time"
    return one if one == other else meetings.get(frozenset({one, other}), "string")


class Spelled(float):
    """A number that became a text: any spelling that reads back as it will do."""


def cast(value: Any, kind: str, wanted: str) -> Any:  # noqa: PLR0911  # a case a line
    """Return a value of one kind as one of another."""
    if value is None or kind == wanted:
        return value
    if wanted == "number":
        return float(value)
    if wanted == "date-time":
        return dt.datetime.combine(value, dt.time())
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return Spelled(value)
    if isinstance(value, dt.datetime):
        return value.isoformat(timespec="microseconds") + "Z"
    return str(value)


def _stays_a_key(kind: str, other: str) -> bool:
    """Return whether values of one kind are the same keys once the other came."""
    met = meet(kind, other)
    return met == kind or (met == "string" and kind in KEYS_AS_TEXT)


def key_of(value: Any) -> Any:
    """Return what tells keys apart."""
    if isinstance(value, Spelled):
        return str(int(value)) if value.is_integer() else repr(float(value))
    return value


# --- streams


@dataclass
class Column:
    name: str
    kind: str
    max_length: int
    is_key: bool


@dataclass
class Row:
    """A record that is held: its values by property, and the kinds they were read as."""

    values: dict[str, Any]
    kinds: dict[str, str]
    deletes: bool


@dataclass
class Stream:
    """A stream as its messages make it; ``columns`` by property."""

    name: str
    columns: dict[str, Column] = field(default_factory=dict)
    bookmarks: bool = False
    rows: list[Row] = field(default_factory=list)
    older: list[Row] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)
    versioned: bool | None = None
    version: int | None = None
    first_line: int = 0
    last_line: int = 0
    proven_at: int = 0
    begun_at: int = 0
    read_under: tuple[str | None] | None = None
    activated_at: int = 0

    @property
    def table(self) -> str:
        return legal(self.name)

    @property
    def keys(self) -> list[str]:
        return [name for name, column in self.columns.items() if column.is_key]


class Oracle:
    """Takes lines, tells the outcome.

    Args:
        rules: The settings.
        tables: What is in the pool before.
    """

    def __init__(self, rules: Rules, tables: dict[str, Table] | None = None) -> None:
        self.rules = rules
        self.tables = dict(tables or {})
        self.streams: dict[str, Stream] = {}
        self.states: list[tuple[int, str]] = []
        self.jobs: list[tuple[str, str]] = []
        self.syncing: tuple[str | None] | None = None

    def outcome(self, data: bytes) -> Outcome:
        """Return what a run over this input must come to."""
        lines = data.decode().removeprefix("\ufeff").split("\n")
        cut_off = bool(lines[-1].strip())
        try:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    self._line(number, line, last=cut_off and number == len(lines))
            unproven = self._finish()
        except Refused as refused:
            for stream in self.streams.values():
                stream.counts.not_loaded = stream.counts.read
            return self._ended(refused, list(self.streams.values()))
        return self._ended(Refused(4, "TC-INPUT-10") if unproven else None, unproven)

    def _ended(self, refused: Refused | None, pending: list[Stream]) -> Outcome:
        first = min((s.first_line for s in pending if s.rows), default=None)
        safe = [text for line, text in self.states if first is None or line < first]
        return Outcome(
            refused.exit_code if refused else 0,
            refused.code if refused else None,
            self.tables,
            safe[-1] if safe else None,
            {stream.name: stream.counts for stream in self.streams.values()},
            self.jobs,
        )

    def _line(self, number: int, line: str, *, last: bool) -> None:
        text = mended(line)
        try:
            message = members(text)
        except (ValueError, IndexError):
            raise Refused(4, "TC-INPUT-02" if last else "TC-INPUT-01") from None
        kind = json.loads(message["type"])
        stream = json.loads(message.get("stream", "null"))
        if kind == "SCHEMA":
            self._schema(stream, message)
        elif kind == "RECORD":
            version = json.loads(message.get("version", "null"))
            self._record(number, stream, message["record"], version)
        elif kind == "BATCH":
            self._batch(number, stream, json.loads(line))
        elif kind == "STATE":
            self.states.append((number, members(line)["value"]))
            value = json.loads(message["value"])
            for each in self.streams.values():
                # It may say already that a table was read which only comes now.
                begins = value.get("currently_syncing") == each.name and each.versioned is None
                each.begun_at = (each.begun_at or number) if begins else 0
            if "currently_syncing" in value:
                self._syncs(number, value["currently_syncing"])
        elif kind == "ACTIVATE_VERSION" and stream in self.streams:
            found = self.streams[stream]
            if found.rows and json.loads(message["version"]) == found.version:
                found.activated_at = found.proven_at = number

    def _syncs(self, number: int, name: str | None) -> None:
        """Take note of a state that names what the tap reads now.

        It proves the end of every other stream. A name that is no stream's may be another word for
        that stream, if it was named before its last record, or if nothing was.
        """
        for each in self.streams.values():
            known = name is None or name in self.streams
            if each.name != name and (known or each.read_under not in (None, (name,))):
                each.proven_at = number
        self.syncing = (name,)

    def _schema(self, name: str, message: dict[str, str]) -> None:
        schema = json.loads(message["schema"])
        properties = schema.get("properties") or {}
        keys = json.loads(message.get("key_properties", "[]")) or []
        keys = [] if self.rules.method == "append-only" else keys
        if not properties:
            raise Refused(4, "TC-INPUT-06")
        if not set(keys) <= set(properties):
            raise Refused(5, "TC-CONTRACT-02")
        names = column_names(list(properties))
        columns = {
            each: Column(names[each], *kind_of(properties[each], schema), is_key=each in keys)
            for each in properties
        }
        known = self.streams.get(name)
        if known is None:
            if legal(name).casefold() in (s.table.casefold() for s in self.streams.values()):
                raise Refused(5, "TC-CONTRACT-01")
            known = self.streams[name] = Stream(name, columns)
        else:
            self._change(known, columns)
        if known.versioned is None:
            known.bookmarks = bool(json.loads(message.get("bookmark_properties", "null")))

    def _change(self, stream: Stream, columns: dict[str, Column]) -> None:
        """Widen a stream's table; under another key, what is held goes first."""
        keys = [each for each in [*stream.columns, *columns] if each in columns]
        keys = [each for each in dict.fromkeys(keys) if columns[each].is_key]
        known = set(stream.columns)
        changes = keys != stream.keys or any(
            not _stays_a_key(stream.columns[each].kind, columns[each].kind) for each in keys
        )
        if changes and self.rules.method == "overwrite":
            self._settle_keys(stream)
        elif changes and stream.rows:
            stream.versioned = False
            self._push(stream)
        for each, new in columns.items():
            old = stream.columns.setdefault(each, new)
            old.kind = meet(old.kind, new.kind)
            old.max_length = max(old.max_length, new.max_length)
        # The names do not depend on what came first; a column that is there cannot lose its own.
        for each, name in column_names(list(stream.columns)).items():
            if each in known and stream.columns[each].name != name:
                raise Refused(5, "TC-CONTRACT-10")
            stream.columns[each].name = name
        for each, column in stream.columns.items():
            column.is_key = each in keys

    def _record(self, number: int, name: str, text: str, version: int | None) -> None:
        stream = self.streams.get(name)
        if stream is None:
            raise Refused(4, "TC-INPUT-05")
        if stream.versioned is None:
            full = version is not None and not stream.bookmarks and self.rules.activate_version
            stream.versioned = full and self.rules.method != "append-only"
        stream.counts.read += 1
        stream.read_under = self.syncing
        if stream.versioned or self.rules.method == "overwrite":
            stream.first_line = stream.first_line or stream.begun_at
        stream.first_line = stream.first_line or number
        row = self._row(stream, members(text))
        if stream.versioned and None not in (version, stream.version):
            if int(version or 0) < int(stream.version or 0):
                stream.older.append(row)
                return
            if version != stream.version:
                stream.older, stream.rows = stream.older + stream.rows, []
        stream.last_line = number
        stream.version = version if version is not None or not stream.versioned else stream.version
        stream.rows.append(row)

    def _row(self, stream: Stream, raws: dict[str, str]) -> Row:
        deletes = self.rules.hard_delete and self.rules.method != "append-only"
        deletes = deletes and raws.get(DELETED_AT, "null") not in ("null", '""', "false")
        if deletes and not stream.keys:
            raise Refused(5, "TC-CONTRACT-11")
        if deletes:
            raws = {name: raw for name, raw in raws.items() if name != DELETED_AT}
        values = {}
        for name, column in stream.columns.items():
            value = value_of(column.kind, raws.get(name, "null"))
            if value is None and column.is_key:
                raise Refused(4, "TC-INPUT-07")
            if column.is_key and not _is_exact(column.kind, raws[name]):
                raise Refused(4, "TC-INPUT-08")
            if column.kind in TEXTS and len(value or "") > LENGTHS[-1]:
                raise Refused(5, "TC-CONTRACT-05")
            values[name] = value
        return Row(values, {name: column.kind for name, column in stream.columns.items()}, deletes)

    def _batch(self, number: int, stream: str, message: dict[str, Any]) -> None:
        for uri in message["manifest"]:
            data = Path(unquote(urlsplit(uri).path)).read_bytes()
            data = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
            for line in data.decode().splitlines():
                if line.strip():
                    self._record(number, stream, mended(line), message.get("version"))

    # --- pushes

    def _finish(self) -> list[Stream]:
        """Push what is held; return the streams whose end nothing proves."""
        unproven = []
        for stream in self.streams.values():
            proven = stream.proven_at > stream.last_line or self.rules.trust_end_of_input
            in_midst = self.syncing is not None and self.syncing[0] is not None
            in_full = self.rules.method == "overwrite" or (bool(stream.versioned) and in_midst)
            if in_full and not proven:
                # Without records there is nothing to prove.
                unproven += [stream] if stream.rows else []
            else:
                self._push(stream)
        for stream in unproven:
            stream.counts.not_loaded = len(stream.rows) + len(stream.older)
        return unproven

    def _push(self, stream: Stream) -> None:
        """Load what a stream holds."""
        if not stream.rows:
            return
        replaces = self.rules.method == "overwrite" or (
            bool(stream.versioned) and stream.activated_at > stream.last_line
        )
        there = None if replaces else self.tables.get(stream.table)
        if replaces:
            stream.counts.superseded += len(stream.older)
        else:
            stream.rows = stream.older + stream.rows
        stream.older = []
        kinds = {c.name: _sent(c, there) for c in stream.columns.values()}
        loaded, deleted = self._merged(stream, kinds)
        made = Table() if there is None else there
        known = {name.casefold(): name for name in made.kinds}
        kinds = {known.get(name.casefold(), name): kind for name, kind in kinds.items()}
        loaded, deleted = (
            [{known.get(name.casefold(), name): row[name] for name in row} for row in some]
            for some in (loaded, deleted)
        )
        for name, longest in made.lengths.items():
            if any(isinstance(r.get(name), str) and len(r[name]) > longest for r in loaded):
                raise Refused(5, "TC-CONTRACT-03")
        stream.counts.merged += len(stream.rows) - len(loaded) - len(deleted)
        stream.counts.loaded += len(loaded)
        stream.counts.deleted += len(deleted)
        stream.rows, stream.first_line = [], 0
        makes = there is None and (replaces or self.rules.makes_by_replace)
        self.jobs += [(stream.table, "REPLACE" if makes else "DELTA")] if loaded else []
        self.jobs += [(stream.table, "DELTA")] if deleted and there is not None else []
        if not loaded and (replaces or there is None):
            return
        keys = [known.get(n.casefold(), n) for n in (stream.columns[k].name for k in stream.keys)]
        gone = {_key(row, keys) for row in [*loaded, *deleted]} if keys else set()
        rows = [row for row in made.rows if not keys or _key(row, keys) not in gone] + loaded
        all_kinds = made.kinds | (
            {n: made.kinds.get(n, k) for n, k in kinds.items()} if loaded else {}
        )
        lengths = _lengths(stream, kinds, loaded, known) | made.lengths
        rows = [{name: row.get(name) for name in all_kinds} for row in rows]
        self.tables[stream.table] = Table(all_kinds, lengths, rows)

    def _merged(
        self, stream: Stream, kinds: dict[str, str]
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return one row for each key: those to load, and those to delete."""
        newest = self._newest(stream, kinds)
        loaded = [values for row, values in newest if not row.deletes]
        return loaded, [values for row, values in newest if row.deletes]

    def _newest(self, stream: Stream, kinds: dict[str, str]) -> list[tuple[Row, dict[str, Any]]]:
        """Return the last row for each key, with its values by column."""
        newest: dict[Any, tuple[Row, dict[str, Any]]] = {}
        keys = [stream.columns[name].name for name in stream.keys]
        for number, row in enumerate(stream.rows):
            values = {}
            for name, column in stream.columns.items():
                read_as = row.kinds.get(name, column.kind)
                widened = cast(row.values.get(name), read_as, kinds[column.name])
                values[column.name] = widened
            key = _key(values, keys)
            # Rows from before a column was part of the key are nobody's older version.
            newest[number if not keys or None in key else key] = (row, values)
        return list(newest.values())

    def _settle_keys(self, stream: Stream) -> None:
        """Leave one row for each key, while it is the key."""
        if not stream.keys:
            return
        kinds = {column.name: column.kind for column in stream.columns.values()}
        newest = [row for row, _ in self._newest(stream, kinds)]
        stream.counts.merged += len(stream.rows) - len(newest)
        stream.rows = [row for row in newest if not row.deletes]
        stream.counts.deleted += len(newest) - len(stream.rows)


def _sent(column: Column, there: Table | None) -> str:
    """Return the kind that a column is sent as, for a table that may be there."""
    there_kinds = {} if there is None else {n.casefold(): k for n, k in there.kinds.items()}
    kind = there_kinds.get(column.name.casefold())
    if kind is None or kind == column.kind or {kind, column.kind} <= set(TEXTS):
        return column.kind
    loses = column.is_key and (kind not in TEXTS or column.kind not in KEYS_AS_TEXT)
    if not loses and (kind in TEXTS or (kind, column.kind) == ("number", "integer")):
        return "string" if kind in TEXTS else kind
    raise Refused(5, "TC-CONTRACT-04")


def _lengths(
    stream: Stream, kinds: dict[str, str], rows: list[dict[str, Any]], known: dict[str, str]
) -> dict[str, int]:
    """Return the length of each text column: twice the longest text, or the schema's."""
    lengths = {}
    for column in stream.columns.values():
        name = known.get(column.name.casefold(), column.name)
        if kinds[name] in TEXTS:
            longest = max((len(r[name]) for r in rows if isinstance(r[name], str)), default=0)
            wanted = max(2 * longest, column.max_length)
            lengths[name] = next((n for n in LENGTHS if n >= wanted), LENGTHS[-1])
    return lengths


def _key(row: dict[str, Any], keys: list[str]) -> tuple[Any, ...]:
    return tuple(key_of(row[name]) for name in keys)
