"""Write Singer inputs of several kinds, of any size: the same bytes for the same seed.

Hides what the records are made of. Guarantees: the shorter of two inputs of one kind and seed
holds the first records of the longer one; memory does not grow with the size. Records are put
together from pieces that were rendered beforehand, with values of their own in between, so that
10 GB take minutes at most.

    python -m benchmarks.inputs orders --records 1000000 --output orders.jsonl
    python -m benchmarks.inputs wide --bytes 10GB | target-celonis --dry-run
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

SEED = 42

RECORDS_PER_STATE = 1_000
"""Of the kinds that print states under way. Records are made in batches of as many."""

Schema = dict[str, Any]

_INTEGER: Schema = {"type": "integer"}
_NUMBER: Schema = {"type": "number"}
_BOOLEAN: Schema = {"type": "boolean"}
_STRING: Schema = {"type": "string"}
_MOMENT: Schema = {"type": "string", "format": "date-time"}


def _nullable(schema: Schema) -> Schema:
    return schema | {"type": ["null", schema["type"]]}


_WORDS = (
    *("alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india"),
    *("juliet", "kilo", "lima", "mike", "november", "oscar", "papa", "quebec", "romeo"),
    *("sierra", "tango"),
)
_EXTRACTED = '"time_extracted":"2026-03-01T12:00:00.000000Z"}\n'
_FIRST_MOMENT = datetime(2020, 1, 1, tzinfo=UTC)
_SPAN_SECONDS = 180_000_000
_PIECES = 4_096
"""How many of each piece are rendered: as many distinct values as a column of a real table may
have, and few enough to be ready in a moment."""

_BATCH = range(RECORDS_PER_STATE)


# --- values


def _second(rng: random.Random) -> str:
    moment = _FIRST_MOMENT + timedelta(seconds=rng.randrange(_SPAN_SECONDS))
    return moment.strftime("%Y-%m-%dT%H:%M:%S")


def _moment(rng: random.Random) -> str:
    return f'"{_second(rng)}.{rng.randrange(1_000_000):06d}Z"'


def _offset_moment(rng: random.Random) -> str:
    return f'"{_second(rng)}+00:00"'


def _date(rng: random.Random) -> str:
    return f'"{_second(rng)[:10]}"'


def _word(rng: random.Random) -> str:
    return f'"{rng.choice(_WORDS)}"'


def _words(rng: random.Random, count: int) -> str:
    return f'"{" ".join(rng.choices(_WORDS, k=count))}"'


def _number(rng: random.Random, limit: float, digits: int) -> str:
    return repr(round(rng.random() * limit, digits))


def _maybe(rng: random.Random, share: float, value: str) -> str:
    """Return a value, or null where a share of the values is not reached."""
    return value if rng.random() < share else "null"


def _compact(value: Any, *, is_ascii: bool = True) -> str:
    return json.dumps(value, ensure_ascii=is_ascii, separators=(",", ":"))


def _rendered(make: Callable[[], str], count: int = _PIECES) -> list[str]:
    return [make() for _ in range(count)]


# --- kinds


_ORDERS: dict[str, Schema] = {
    "id": _INTEGER,
    "customer_id": _INTEGER,
    "status": _STRING,
    "currency": _STRING,
    "amount": _NUMBER,
    "tax": _nullable(_NUMBER),
    "quantity": _INTEGER,
    "discount": _nullable(_NUMBER),
    "created_at": _MOMENT,
    "updated_at": _nullable(_MOMENT),
    "shipped_at": _nullable(_MOMENT),
    "order_date": _nullable(_STRING) | {"format": "date"},
    "is_paid": _BOOLEAN,
    "is_gift": _nullable(_BOOLEAN),
    "country": _nullable(_STRING),
    "channel": _nullable(_STRING),
    "external_ref": _STRING,
    "note": _nullable(_STRING),
    "weight": _nullable(_NUMBER),
    "parent_id": _nullable(_INTEGER),
}


def _orders(rng: random.Random) -> Iterator[list[str]]:
    """Make a table as a shop has it; four of its columns never repeat a value by design."""
    begin = _rendered(
        lambda: (
            f'"status":"{rng.choice(("new", "paid", "packed", "shipped", "returned"))}",'
            f'"currency":"{rng.choice(("EUR", "USD", "GBP"))}","amount":'
        )
    )
    middle = _rendered(
        lambda: (
            f',"tax":{_maybe(rng, 0.9, _number(rng, 950, 4))},"quantity":{rng.randrange(1, 50)},'
            f'"discount":{_maybe(rng, 0.3, _number(rng, 1, 3))},"created_at":"{_second(rng)}.'
        )
    )
    end = _rendered(
        lambda: (
            f'Z","updated_at":{_moment(rng)},"shipped_at":{_maybe(rng, 0.6, _offset_moment(rng))},'
            f'"order_date":{_date(rng)},"is_paid":{"true" if rng.random() < 0.8 else "false"},'  # noqa: PLR2004
            f'"is_gift":{_maybe(rng, 0.2, "true")},'
            f'"country":"{rng.choice(("DE", "FR", "US", "GB", "IT", "ES"))}",'
            f'"channel":{rng.choice(("null", _word(rng)))},"external_ref":"'
        )
    )
    last = _rendered(
        lambda: (
            f'","note":{_words(rng, 7)},"weight":{_number(rng, 30, 3)},'
            f'"parent_id":{_maybe(rng, 0.1, str(rng.randrange(1_000_000)))}}},{_EXTRACTED}'
        )
    )
    size = RECORDS_PER_STATE
    for first in itertools.count(0, size):
        references = rng.randbytes(16 * size).hex()
        yield [
            f'{{"type":"RECORD","stream":"orders","record":{{"id":{first + i},"customer_id":'
            f"{customer},{a}{cents // 100}.{cents % 100:02d}{b}{microsecond:06d}{c}"
            f"{references[32 * i : 32 * i + 32]}{d}"
            for i, customer, a, cents, b, microsecond, c, d in zip(
                _BATCH,
                rng.choices(range(1_000_000), k=size),
                rng.choices(begin, k=size),
                rng.choices(range(500_000), k=size),
                rng.choices(middle, k=size),
                rng.choices(range(1_000_000), k=size),
                rng.choices(end, k=size),
                rng.choices(last, k=size),
                strict=True,
            )
        ]


_WIDE_GROUPS = 15
_WIDE_GROUP: tuple[tuple[Schema, Callable[[random.Random], str]], ...] = (
    (_INTEGER, lambda rng: str(rng.randrange(10**9))),
    (_nullable(_NUMBER), lambda rng: _number(rng, 1e6, 3)),
    (_nullable(_STRING), _word),
    (_nullable(_MOMENT), _moment),
    (_nullable(_INTEGER), lambda rng: str(rng.randrange(10**9))),
    (_nullable(_BOOLEAN), lambda rng: rng.choice(("true", "false"))),
    (_nullable(_STRING), lambda rng: f'"{rng.getrandbits(48):012x}"'),
    (_nullable(_NUMBER), lambda rng: repr(rng.random())),
    (_nullable(_STRING), lambda rng: _words(rng, 2)),
    (_nullable(_STRING), lambda rng: f'"{rng.choice("ABCDEF")}"'),
)
# The first of each ten columns is never null; of all values together a quarter is.
_WIDE_FILLED = 1 - 0.25 * len(_WIDE_GROUP) / (len(_WIDE_GROUP) - 1)
_WIDE: dict[str, Schema] = {
    f"col_{number:03d}": _WIDE_GROUP[number % 10][0] for number in range(_WIDE_GROUPS * 10)
}


def _wide(rng: random.Random) -> Iterator[list[str]]:
    def piece(group: int) -> str:
        fields = [
            f'"col_{group * 10 + number:03d}":'
            + (make(rng) if number == 0 else _maybe(rng, _WIDE_FILLED, make(rng)))
            for number, (_, make) in enumerate(_WIDE_GROUP)
            if (group, number) != (0, 0)  # that is the key
        ]
        return ",".join(fields)

    groups = [_rendered(lambda g=group: piece(g), 500) for group in range(_WIDE_GROUPS)]  # type: ignore[misc]
    for first in itertools.count(0, RECORDS_PER_STATE):
        rows = zip(*(rng.choices(group, k=RECORDS_PER_STATE) for group in groups), strict=True)
        yield [
            f'{{"type":"RECORD","stream":"wide","record":{{"col_000":{number},'
            f"{','.join(row)}}},{_EXTRACTED}"
            for number, row in enumerate(rows, first)
        ]


_INTERLEAVED_STREAMS = ("accounts", "contacts", "deals", "tickets", "line_items")
_INTERLEAVED: dict[str, Schema] = {
    "id": _INTEGER,
    "name": _nullable(_STRING),
    "owner_id": _nullable(_INTEGER),
    "value": _nullable(_NUMBER),
    "active": _BOOLEAN,
    "created_at": _MOMENT,
    "updated_at": _nullable(_MOMENT),
    "tag": _nullable(_STRING),
}


def _interleaved(rng: random.Random) -> Iterator[list[str]]:
    """Make records of five streams in turn, with the blanks that singer-python writes."""
    begin = _rendered(
        lambda: (
            f'"name": {_words(rng, 2)}, '
            f'"owner_id": {_maybe(rng, 0.9, str(rng.randrange(5_000)))}, "value": '
        )
    )
    end = _rendered(
        lambda: (
            f', "active": {rng.choice(("true", "false"))}, "created_at": {_moment(rng)}, '
            f'"updated_at": {_moment(rng)}, "tag": {_word(rng)}}}, '
            '"time_extracted": "2026-03-01T12:00:00.000000Z"}\n'
        )
    )
    size = RECORDS_PER_STATE
    for first in itertools.count(0, size):
        yield [
            f'{{"type": "RECORD", "stream": "{stream}", "record": {{"id": {first + i}, '
            f"{a}{cents // 100}.{cents % 100:02d}{b}"
            for i, stream, a, cents, b in zip(
                _BATCH,
                itertools.cycle(_INTERLEAVED_STREAMS),
                rng.choices(begin, k=size),
                rng.choices(range(10_000_000), k=size),
                rng.choices(end, k=size),
                strict=False,  # the streams go round for ever
            )
        ]


_NESTED: dict[str, Schema] = {
    "id": _INTEGER,
    "email": _nullable(_STRING),
    "created_at": _MOMENT,
    "address": {
        "type": ["null", "object"],
        "properties": {
            "street": _nullable(_STRING),
            "city": _nullable(_STRING),
            "zip": _nullable(_STRING),
            "geo": {
                "type": ["null", "object"],
                "properties": {"lat": _nullable(_NUMBER), "lon": _nullable(_NUMBER)},
            },
        },
    },
    "items": {
        "type": ["null", "array"],
        "items": {
            "type": "object",
            "properties": {
                "sku": _nullable(_STRING),
                "qty": _nullable(_INTEGER),
                "price": _nullable(_NUMBER),
                "tags": {"type": "array", "items": _STRING},
            },
        },
    },
    "labels": {"type": ["null", "array"], "items": _STRING},
    "attributes": {"type": ["null", "object"]},
    "total": _nullable(_NUMBER),
    "score": _nullable(_INTEGER),
}


def _nested(rng: random.Random) -> Iterator[list[str]]:
    def address() -> str:
        geo = {"lat": rng.random() * 90, "lon": rng.random() * 90}
        street = " ".join(rng.choices(_WORDS, k=3))
        city, code = rng.choice(_WORDS), f"{rng.randrange(99_999):05d}"
        return _compact({"street": street, "city": city, "zip": code, "geo": geo})

    def items() -> str:
        return _compact(
            [
                {
                    "sku": f"{rng.getrandbits(32):08x}",
                    "qty": rng.randrange(9),
                    "price": round(rng.random() * 100, 2),
                    "tags": rng.choices(_WORDS, k=rng.randrange(4)),
                }
                for _ in range(rng.randrange(1, 7))
            ]
        )

    def attributes() -> str:
        values: list[Any] = [1, "x", None, True, 2.5, {"k": [1, 2, {"z": "é"}]}]
        return _compact({rng.choice(_WORDS): rng.choice(values) for _ in range(rng.randrange(6))})

    def labels() -> str:
        return _maybe(rng, 0.8, _compact(rng.choices(_WORDS, k=rng.randrange(5))))

    begin = _rendered(
        lambda: (
            f'"email":"{rng.choice(_WORDS)}@{rng.choice(_WORDS)}.example",'
            f'"created_at":{_moment(rng)},"address":{_maybe(rng, 0.9, address())},"items":'
        )
    )
    middle = _rendered(items, 2_000)
    end = _rendered(
        lambda: (
            f',"labels":{labels()},"attributes":{attributes()},"total":{_number(rng, 900, 2)},'
            f'"score":{rng.randrange(100)}}},{_EXTRACTED}'
        )
    )
    for first in itertools.count(0, RECORDS_PER_STATE):
        yield [
            f'{{"type":"RECORD","stream":"nested","record":{{"id":{first + i},{a}{b}{c}'
            for i, a, b, c in zip(
                _BATCH,
                rng.choices(begin, k=RECORDS_PER_STATE),
                rng.choices(middle, k=RECORDS_PER_STATE),
                rng.choices(end, k=RECORDS_PER_STATE),
                strict=True,
            )
        ]


_TEXT: dict[str, Schema] = {
    "id": _INTEGER,
    "title": _nullable(_STRING),
    "body": _nullable(_STRING),
    "author": _nullable(_STRING),
    "created_at": _MOMENT,
    "summary": _nullable(_STRING),
}
_PHRASES = (
    "Größe und Maß",
    "日本語のテキスト",
    "emoji 😀🎉",
    'quoted "text"',
    "tab\there",
    "new\nline",
    "back\\slash",
    "plain ascii words in a row",
    "Ελληνικά",
    "русский текст",
    "https://example.com/a/b?c=d&e=f",
)


def _text(rng: random.Random) -> Iterator[list[str]]:
    """Make long texts; one half is written as UTF-8, the other with escapes."""

    def phrases(at_least: int, below: int) -> str:
        said = " ".join(rng.choices(_PHRASES, k=rng.randrange(at_least, below)))
        return _compact(said, is_ascii=rng.random() < 0.5)  # noqa: PLR2004

    titles = _rendered(lambda: phrases(3, 4), 500)
    bodies = _rendered(lambda: phrases(20, 220), 1_000)
    ends = _rendered(
        lambda: (
            f',"author":{_word(rng)},"created_at":{_moment(rng)},'
            f'"summary":{_maybe(rng, 0.67, phrases(3, 4))}}},{_EXTRACTED}'
        )
    )
    for first in itertools.count(0, RECORDS_PER_STATE):
        yield [
            f'{{"type":"RECORD","stream":"text","record":{{"id":{first + i},"title":{a},'
            f'"body":{b}{c}'
            for i, a, b, c in zip(
                _BATCH,
                rng.choices(titles, k=RECORDS_PER_STATE),
                rng.choices(bodies, k=RECORDS_PER_STATE),
                rng.choices(ends, k=RECORDS_PER_STATE),
                strict=True,
            )
        ]


_KEYED: dict[str, Schema] = {
    "id": _INTEGER,
    "revision": _INTEGER,
    "status": _STRING,
    "amount": _NUMBER,
    "owner": _nullable(_STRING),
    "created_at": _MOMENT,
    "updated_at": _nullable(_MOMENT),
    "note": _nullable(_STRING),
}
_REPEATING = frozenset({4, 7, 9})
"""Of each ten records, those that come with the key of an earlier one, any of all before them."""


def _keyed(rng: random.Random) -> Iterator[list[str]]:
    begin = _rendered(
        lambda: (
            f',"status":"{rng.choice(("open", "held", "done"))}","amount":{_number(rng, 9e3, 2)}'
        )
    )
    end = _rendered(
        lambda: (
            f',"owner":{_maybe(rng, 0.9, _word(rng))},"created_at":{_moment(rng)},'
            f'"updated_at":{_moment(rng)},"note":{_maybe(rng, 0.7, _words(rng, 6))}}},{_EXTRACTED}'
        )
    )
    known = 0
    for first in itertools.count(0, RECORDS_PER_STATE):
        keys = []
        for position in _BATCH:
            if position % 10 in _REPEATING:
                keys.append(int(rng.random() * known))
            else:
                keys.append(known)
                known += 1
        yield [
            f'{{"type":"RECORD","stream":"keyed","record":{{"id":{key},"revision":{first + i}{a}{b}'
            for i, key, a, b in zip(
                _BATCH,
                keys,
                rng.choices(begin, k=RECORDS_PER_STATE),
                rng.choices(end, k=RECORDS_PER_STATE),
                strict=True,
            )
        ]


@dataclass(frozen=True)
class Kind:
    """One kind of input.

    Attributes:
        name: What it is called.
        about: What is in it, for people.
        streams: The streams; all have the same columns.
        properties: Their columns; the first one is the key.
        batches: Makes the records, a thousand at a time, without end.
        has_states: Whether a STATE stands behind each thousand records, not only at the end.
    """

    name: str
    about: str
    streams: tuple[str, ...]
    properties: Mapping[str, Schema]
    batches: Callable[[random.Random], Iterator[list[str]]]
    has_states: bool = False

    def head(self) -> bytes:
        """Return the SCHEMA messages."""
        schema = {"type": "object", "properties": self.properties}
        key = next(iter(self.properties))
        lines = [
            {"type": "SCHEMA", "stream": stream, "schema": schema, "key_properties": [key]}
            for stream in self.streams
        ]
        return "".join(json.dumps(line) + "\n" for line in lines).encode()

    def state(self, records: int) -> bytes:
        """Return the STATE behind so many records."""
        bookmarks = {stream: {"records": records} for stream in self.streams}
        return (json.dumps({"type": "STATE", "value": {"bookmarks": bookmarks}}) + "\n").encode()

    def distinct_keys(self, records: int) -> int:
        """Return how many rows are left of so many records when one row stands for a key."""
        if self.name != "keyed":
            return records
        tens, rest = divmod(records, 10)
        return records - tens * len(_REPEATING) - sum(number < rest for number in _REPEATING)


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("orders", "20 columns of all types", ("orders",), _ORDERS, _orders),
        Kind("wide", "150 columns, a quarter of the values null", ("wide",), _WIDE, _wide),
        Kind(
            "interleaved",
            "5 streams of 8 columns, record by record, a STATE each 1,000",
            _INTERLEAVED_STREAMS,
            _INTERLEAVED,
            _interleaved,
            has_states=True,
        ),
        Kind("nested", "objects and arrays in 4 of 9 columns", ("nested",), _NESTED, _nested),
        Kind("text", "long texts: UTF-8, escapes, line breaks", ("text",), _TEXT, _text),
        Kind(
            "keyed",
            "8 columns; 30 % of the records come with the key of an earlier one",
            ("keyed",),
            _KEYED,
            _keyed,
        ),
    )
}


# --- writing


def blocks(
    kind: Kind,
    *,
    records: int | None = None,
    size_bytes: int | None = None,
    seed: int = SEED,
) -> Iterator[tuple[bytes, int]]:
    """Yield an input as blocks of whole lines, each with the number of records in it.

    Args:
        kind: What it is of.
        records: How many records.
        size_bytes: Or: how many bytes of SCHEMA and RECORD; the record that reaches them is the
            last one.
        seed: Another seed gives other values.
    """
    if (records is None) == (size_bytes is None):
        raise ValueError("An input has either a number of records or a size.")
    head = kind.head()
    yield head, 0
    made, written_bytes = 0, len(head)
    for batch in kind.batches(random.Random(seed)):  # noqa: S311  # no secret
        lines = batch if records is None else batch[: records - made]
        block = "".join(lines).encode()
        if size_bytes is not None and written_bytes + len(block) >= size_bytes:
            lines = _until(lines, size_bytes - written_bytes)
            block = "".join(lines).encode()
        made += len(lines)
        written_bytes += len(block)
        is_last = made == records or (size_bytes is not None and written_bytes >= size_bytes)
        if is_last or kind.has_states:
            block += kind.state(made)
        yield block, len(lines)
        if is_last:
            return


def _until(lines: Sequence[str], size_bytes: int) -> list[str]:
    """Return the first lines that together have at least a size."""
    ends = itertools.accumulate(len(line.encode()) for line in lines)
    return list(lines[: 1 + sum(end < size_bytes for end in ends)])


def write(
    kind: Kind,
    output: IO[bytes],
    *,
    records: int | None = None,
    size_bytes: int | None = None,
    seed: int = SEED,
) -> int:
    """Write an input and return the number of its records."""
    total = 0
    for block, count in blocks(kind, records=records, size_bytes=size_bytes, seed=seed):
        output.write(block)
        total += count
    return total


def parse_size(text: str) -> int:
    """Return the bytes that a size stands for: ``1500``, ``200MB``, ``10 GB``.

    Raises:
        ValueError: It is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT]?)B?", text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no size, such as 200MB or 10GB")
    return int(float(found[1]) * 1000 ** " kMGT".index(found[2] or " "))


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def main(arguments: Sequence[str] | None = None) -> int:
    """Write one input."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.inputs", description="Write a Singer input."
    )
    parser.add_argument("kind", choices=KINDS)
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--records", type=_positive, metavar="N")
    size.add_argument("--bytes", type=parse_size, metavar="SIZE", help="such as 200MB or 10GB")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: standard output")
    parser.add_argument("--seed", type=int, default=SEED)
    given = parser.parse_args(arguments)
    opened = nullcontext(sys.stdout.buffer) if given.output is None else given.output.open("wb")
    with opened as output:
        try:
            write(
                KINDS[given.kind],
                output,
                records=given.records,
                size_bytes=given.bytes,
                seed=given.seed,
            )
            output.flush()
        except BrokenPipeError:  # who reads has enough
            sys.stderr.close()
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
