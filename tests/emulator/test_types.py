"""Types: from Parquet and CSV to the pool's columns and to the listing."""

# ruff: noqa: DTZ001 - Celonis' timestamps have no zone
from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from .conftest import Push, eventually, parquet

MOMENT = dt.datetime(2024, 5, 6, 7, 8, 9, 123456)
# (Arrow array, Celonis type by default, the value stored)
FROM_PARQUET: dict[str, tuple[pa.Array, str, str | None]] = {
    "int8": (pa.array([-7], pa.int8()), "INTEGER", "-7"),
    "int64": (pa.array([2**63 - 1]), "INTEGER", str(2**63 - 1)),
    "uint32": (pa.array([7], pa.uint32()), "INTEGER", "7"),
    "float32": (pa.array([0.5], pa.float32()), "FLOAT", "0.5"),
    "double": (pa.array([0.1]), "FLOAT", "0.1"),
    "decimal": (pa.array([Decimal("12.50")], pa.decimal128(10, 2)), "FLOAT", "12.5"),
    "bool": (pa.array([True]), "BOOLEAN", "true"),
    "string": (pa.array(["ä"]), "STRING", "ä"),
    "large string": (pa.array(["a"], pa.large_string()), "STRING", "a"),
    "dictionary": (pa.array(["a"]).dictionary_encode(), "STRING", "a"),
    "bytes": (pa.array(["ä".encode()]), "STRING", "ä"),
    "date": (pa.array([dt.date(1400, 1, 1)]), "DATE", "1400-01-01"),
    "time": (pa.array([dt.time(1, 2, 3)]), "TIME", "01:02:03"),
    "time32": (pa.array([3_000], pa.time32("ms")), "TIME", "00:00:03"),
    "millis": (pa.array([MOMENT], pa.timestamp("ms")), "DATETIME", "2024-05-06 07:08:09.123"),
    "micros": (pa.array([MOMENT], pa.timestamp("us")), "DATETIME", "2024-05-06 07:08:09.123456"),
    "nanos": (pa.array([MOMENT], pa.timestamp("ns")), "DATETIME", "2024-05-06 07:08:09.123456"),
    "millis UTC": (
        pa.array([MOMENT], pa.timestamp("ms", "UTC")),
        "DATETIME",
        "2024-05-06 07:08:09.123",
    ),
    "micros in a zone": (
        pa.array([MOMENT], pa.timestamp("us", "Europe/Berlin")),
        "DATETIME",
        "2024-05-06 07:08:09.123456",
    ),
    "nanos UTC": (
        pa.array([MOMENT], pa.timestamp("ns", "UTC")),
        "DATETIME",
        "2024-05-06 07:08:09.123456",
    ),
    "no value": (pa.array([None], pa.int64()), "INTEGER", None),
}
LISTED = {"BOOLEAN": "INTEGER", "DATETIME": "DATE", "TIME": "DATE"}


def stored(push: Push, table: str) -> tuple[dict[str, str], list[list[Any]]]:
    """Return a table's Celonis types by column, and its rows."""
    described = push.server.described(table)
    assert described is not None
    types = {column["name"]: column["type"] for column in described["columns"]}
    return types, push.server.rows(f'SELECT * FROM local."{table}"')


def test_types_from_parquet(push: Push, table: str) -> None:
    push.load(table, {name: array for name, (array, _, _) in FROM_PARQUET.items()})
    types, (row,) = stored(push, table)
    assert types == {name: kind for name, (_, kind, _) in FROM_PARQUET.items()}
    assert dict(zip(types, row, strict=True)) == {n: v for n, (_, _, v) in FROM_PARQUET.items()}
    for name, (kind, length) in push.server.columns(table).items():
        assert kind == LISTED.get(types[name], types[name])
        assert (length is not None) == (kind == "STRING")


@pytest.mark.parametrize("keys", [None, ["t"]])
def test_int96_timestamps_of_all_centuries(push: Push, table: str, keys: Any) -> None:
    moments = [
        dt.datetime(1, 1, 1),
        dt.datetime(1399, 12, 31, 23, 59, 59, 999999),
        dt.datetime(1400, 1, 1),
        dt.datetime(1600, 2, 29, 1, 2, 3, 4),
        MOMENT,
        dt.datetime(9999, 12, 31, 23, 59, 59, 999000),
    ]
    content = {"t": pa.array(moments, pa.timestamp("us"))}
    job = push.create(table, "DELTA", keys=keys)
    push.send(job, content, use_deprecated_int96_timestamps=True)
    assert push.run(job)["status"] == "DONE"
    _, rows = stored(push, table)
    assert [row[0] for row in rows] == [
        moment.isoformat(" ").rstrip("0") if moment.microsecond else moment.isoformat(" ")
        for moment in moments
    ]


def declared(kind: str, **fields: Any) -> dict[str, Any]:
    return {"tableSchema": {"columns": [{"columnName": "v", "columnType": kind} | fields]}}


# (declared type, Arrow array, stored value; None = the job ends with ERROR)
DECLARED: list[tuple[str, pa.Array, str | None]] = [
    ("FLOAT", pa.array([3]), "3.0"),
    ("FLOAT", pa.array([Decimal("1.25")]), "1.25"),
    ("DATE", pa.array([MOMENT]), "2024-05-06"),
    ("DATETIME", pa.array([MOMENT.date()]), "2024-05-06 00:00:00"),
    ("DATETIME", pa.array([MOMENT], pa.timestamp("ns", "UTC")), "2024-05-06 07:08:09.123456"),
    ("STRING", pa.array(["a"]), "a"),
    ("INTEGER", pa.array(["7"]), None),
    ("INTEGER", pa.array([1.5]), None),
    ("INTEGER", pa.array([2**63], pa.uint64()), None),
    ("STRING", pa.array([7]), None),
    ("BOOLEAN", pa.array([1]), None),
    ("TIME", pa.array([MOMENT]), None),
]


@pytest.mark.parametrize("kind", ["REPLACE", "DELTA"])
def test_declared_types_rule(push: Push, table: str, kind: str) -> None:
    for number, (column_type, array, expected) in enumerate(DECLARED):
        name = f"{table}_{number}"
        status = "ERROR" if expected is None else "DONE"
        push.load(name, {"v": array}, type=kind, status=status, **declared(column_type))
        if expected is None:
            assert push.server.described(name) is None
        else:
            assert stored(push, name) == ({"v": column_type}, [[expected]])


def test_a_declared_column_that_no_file_has_is_null(push: Push, table: str) -> None:
    push.load(table, {"w": ["a"]}, **declared("DATETIME"))
    assert stored(push, table) == ({"v": "DATETIME", "w": "STRING"}, [[None, "a"]])


# CSV


def load_csv(
    push: Push, table: str, content: bytes, status: str = "DONE", **fields: Any
) -> dict[str, Any]:
    job = push.create(table, fields.pop("type", "REPLACE"), fileType="CSV", **fields)
    answer = push.upload(job, content)
    assert answer.status_code == 200, answer.text
    shown = push.run(job)
    assert shown["status"] == status, shown["logs"]
    return shown


def csv_schema(**columns: str) -> dict[str, Any]:
    listed = [{"columnName": name, "columnType": kind} for name, kind in columns.items()]
    return {"tableSchema": {"columns": listed}}


TYPED = csv_schema(
    i="INTEGER", f="FLOAT", b="BOOLEAN", d="DATE", t="DATETIME", c="TIME", s="STRING"
)


def test_csv_by_default(push: Push, table: str) -> None:
    content = (
        "i,f,b,d,t,c,s\r\n"
        "1,2.5,true,2024-05-06,2024-05-06T07:08:09+02:00,07:08:09,ä\r\n"
        ',,,,,,"with ""quotes"", comma\nand line"\r\n'
    )
    load_csv(push, table, content.encode(), **TYPED)
    types, rows = stored(push, table)
    assert list(types.values()) == [
        "INTEGER",
        "FLOAT",
        "BOOLEAN",
        "DATE",
        "DATETIME",
        "TIME",
        "STRING",
    ]
    assert rows == [
        ["1", "2.5", "true", "2024-05-06", "2024-05-06 05:08:09", "07:08:09", "ä"],
        [None] * 6 + ['with "quotes", comma\nand line'],
    ]
    (chunk,) = push.server.history(table)[0]["chunks"]
    assert (chunk["rows"], chunk["bytes"]) == (2, len(content.encode()))


OPTIONS: dict[str, Any] = {
    "charSet": "ISO-8859-1",
    "separatorSequence": ";",
    "quoteSequence": "'",
    "escapeSequence": "\\",
    "lineEnding": "\n",
    "decimalSeparator": ",",
    "thousandSeparator": ".",
    "dateFormat": "dd.MM.yyyy'T'HH:mm:ss.SSSXXX",
    "additionalColumnOptions": [
        {"columnName": "D", "dateFormat": "yyyyMMdd", "thousandsSeparator": None},
        {"columnName": "g", "decimalSeparator": ".", "thousandsSeparator": " "},
    ],
}


def test_csv_by_its_options(push: Push, table: str) -> None:
    content = "f;g;d;t;s\n1.234,5;1 000.25;20240506;06.05.2024T07:08:09.123+01:00;'\xe4 \\' ; x'\n"
    fields = csv_schema(f="FLOAT", g="FLOAT", d="DATE", t="DATETIME")
    options: dict[str, Any] = {"csvParsingOptions": OPTIONS}
    load_csv(push, table, content.encode("latin-1"), **fields, **options)
    _, rows = stored(push, table)
    assert rows == [["1234.5", "1000.25", "2024-05-06", "2024-05-06 06:08:09.123", "ä ' ; x"]]


@pytest.mark.parametrize(
    ("date_format", "text", "expected"),
    [
        ("yyyy-MM-dd'T'HH:mm:ss.SSSXXX", "2024-01-02T03:04:05.678Z", "2024-01-02 03:04:05.678"),
        ("yyyy-MM-dd'T'HH:mm:ss.SSSX", "2024-01-02T03:04:05.678Z", "2024-01-02 03:04:05.678"),
        ("yyyy-MM-dd'T'HH:mm:ssXX", "2024-01-02T03:04:05-0230", "2024-01-02 05:34:05"),
        ("HH:mmXXX dd.MM.yyyy", "03:04Z 02.01.2024", "2024-01-02 03:04:00"),
        ("yyyy-MM-dd'T'HH:mm:ss'Z'", "2024-01-02T03:04:05Z", "2024-01-02 03:04:05"),
        ("d.M.yyyy", "2.1.2024", "2024-01-02 00:00:00"),
        ("d.M.yyyy", "22.11.2024", "2024-11-22 00:00:00"),
        ("M/d/yyyy h:mm a", "1/2/2024 3:04 PM", "2024-01-02 15:04:00"),
        ("H:mm dd.MM.yy", "3:04 02.01.24", "2024-01-02 03:04:00"),
        ("dd-MMM-yyyy", "02-JAN-2024", "2024-01-02 00:00:00"),
        ("EEE, d MMMM yyyy", "Tue, 2 January 2024", "2024-01-02 00:00:00"),
        ("EEEE d MMM uuuu", "Tuesday 2 Jan 2024", "2024-01-02 00:00:00"),
        ("yyyy-MM-dd HH:mm:ss.S", "2024-01-02 03:04:05.6", "2024-01-02 03:04:05.6"),
        ("yyyy-MM-dd HH:mm:ss.SS", "2024-01-02 03:04:05.67", "2024-01-02 03:04:05.67"),
        ("yyyyMMddHHmmss", "20240102030405", "2024-01-02 03:04:05"),
        ("''yy 100% d.M.", "'24 100% 2.1.", "2024-01-02 00:00:00"),
    ],
)
def test_java_date_formats(
    push: Push, table: str, date_format: str, text: str, expected: str
) -> None:
    content = f'd;e\n"{text}";"{text}"\n'
    options = {"separatorSequence": ";", "dateFormat": date_format}
    own = {"columnName": "E", "dateFormat": date_format}
    both = options | {"additionalColumnOptions": [own]}
    fields = csv_schema(d="DATETIME", e="DATETIME") | {"csvParsingOptions": both}
    load_csv(push, table, content.encode(), **fields)
    assert stored(push, table)[1] == [[expected, expected]]


@pytest.mark.parametrize(
    ("date_format", "named"),
    [("yyyy-MM-ddTHH:mm", "T"), ("GGG yyyy", "GGG"), ("HH:mm[:ss]", "["), ("yyyy'", "'")],
)
def test_date_formats_that_are_not_understood(
    push: Push, table: str, date_format: str, named: str
) -> None:
    own = {"columnName": "d", "dateFormat": date_format}
    for options, place in (
        ({"dateFormat": date_format}, "dateFormat"),
        ({"additionalColumnOptions": [own]}, "additionalColumnOptions.0.dateFormat"),
    ):
        answer = push.try_create(table, fileType="CSV", csvParsingOptions=options)
        assert answer.status_code == 400
        (error,) = answer.json()["errors"]
        assert error["attribute"] == f"csvParsingOptions.{place}"
        assert error["error"].startswith(f"{named} in a date format is not understood")


def test_csv_upserts_and_deletes(push: Push, table: str) -> None:
    fields = csv_schema(id="INTEGER") | {"type": "DELTA", "keys": ["ID"]}
    load_csv(push, table, b"id,v\n1,a\n2,b\n1,c\n", **fields)
    job = push.create(table, "DELTA", fileType="CSV", keys=["id"])
    assert push.upload(job, b"id\n2\n", "deleted").status_code == 200
    push.run(job)
    assert stored(push, table)[1] == [["1", "c"]]


def test_a_csv_value_of_another_type_ends_the_job(push: Push, table: str) -> None:
    shown = load_csv(push, table, b"i\n1\nx\n", "ERROR", **csv_schema(i="INTEGER"))
    assert "x" in shown["logs"][0]
    assert push.server.described(table) is None


@pytest.mark.parametrize(
    ("content", "fields", "status"),
    [
        (b"", {}, 400),
        (b"a,a\n1,2\n", {}, 400),
        (b"a,b\n1,2,3\n", {}, 400),
        (b"a\n\xff\xfe\n", {}, 400),
        (b"a\n1\n", {"csvParsingOptions": {"charSet": "no such"}}, 400),
        (parquet({"a": [1]}), {}, 400),
        (b"a\n1\n", {"type": "DELTA", "keys": ["k"]}, 500),
    ],
)
def test_csv_files_that_are_refused(
    push: Push, table: str, content: bytes, fields: dict[str, Any], status: int
) -> None:
    job = push.create(table, **({"fileType": "CSV"} | fields))
    answer = push.upload(job, content)
    assert answer.status_code == status, answer.text
    assert push.server.get(f"{push.base}/{job}/chunks").json() == []


def test_tables_made_by_hand_are_listed(start_server: Any) -> None:
    import duckdb

    push = Push(start_server())
    push.server.stop()
    with duckdb.connect(str(push.server.database)) as connection:
        connection.execute("CREATE TABLE local.made (s VARCHAR, n INTEGER[])")
        connection.execute("CREATE VIEW local.seen AS SELECT 1 AS one")
    push = Push(start_server(database=push.server.database))
    listed = push.server.get("/integration/api/pools/local/tables").json()
    assert {t["name"]: t["type"] for t in listed} == {"made": "TABLE", "seen": "VIEW"}
    assert push.server.columns("made")["s"] == ("STRING", 65_000)
    push.load("made", {"s": ["x" * 100]}, type="DELTA")
    shown = push.load("seen", {"one": [1]}, type="DELTA", status="ERROR")
    assert "view" in shown["logs"][0]
    push.load("seen", {"one": [1]})
    eventually(lambda: push.server.described("seen"), "the view became a table")
