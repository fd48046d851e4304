"""What executed jobs do to tables: REPLACE, append, upsert, delete; lengths; schema differences."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from .conftest import Push, Server, StartServer, parquet

Rows = list[list[Any]]


def schema(**columns: Any) -> dict[str, Any]:
    """Return a tableSchema; a column is its type, or (type, length)."""
    listed = []
    for name, column in columns.items():
        kind, length = column if isinstance(column, tuple) else (column, None)
        listed.append({"columnName": name, "columnType": kind, "fieldLength": length})
    return {"tableSchema": {"tableName": "ignored", "columns": listed}}


def rows(server: Server, table: str, columns: str = "*", where: str = "local") -> Rows:
    return server.rows(f'SELECT {columns} FROM "{where}"."{table}" ORDER BY ALL')


def keyed(*pairs: tuple[Any, Any]) -> pa.Table:
    return pa.table(
        {
            "id": pa.array([key for key, _ in pairs], pa.int64()),
            "v": pa.array([value for _, value in pairs], pa.string()),
        }
    )


# Each step is (type, keys, [(kind, rows)]); the last item is what stands in the table at the end.
JOBS: dict[str, tuple[list[tuple[str, list[str] | None, list[tuple[str, Any]]]], Rows]] = {
    "replace holds the rows of all its chunks": (
        [
            ("REPLACE", None, [("upserted", keyed((9, "old")))]),
            ("REPLACE", None, [("upserted", keyed((1, "a"))), ("upserted", keyed((2, "b")))]),
        ],
        [["1", "a"], ["2", "b"]],
    ),
    "replace with keys does not merge": (
        [("REPLACE", ["id"], [("upserted", keyed((1, "a"), (1, "b")))])],
        [["1", "a"], ["1", "b"]],
    ),
    "delta without keys appends": (
        [("DELTA", None, [("upserted", keyed((1, "a")))])] * 2,
        [["1", "a"], ["1", "a"]],
    ),
    "delta with keys updates and inserts": (
        [
            ("REPLACE", None, [("upserted", keyed((1, "a"), (2, "b")))]),
            ("DELTA", ["ID"], [("upserted", keyed((2, "B"), (3, "C")))]),
        ],
        [["1", "a"], ["2", "B"], ["3", "C"]],
    ),
    "the last row of a key in a chunk stays": (
        [("DELTA", ["id"], [("upserted", keyed((1, "a"), (2, "x"), (1, "z"), (1, "b")))])],
        [["1", "b"], ["2", "x"]],
    ),
    "a later chunk wins over an earlier one": (
        [("DELTA", ["id"], [("upserted", keyed((1, "z"))), ("upserted", keyed((1, "a")))])],
        [["1", "a"]],
    ),
    "a deleted chunk after an upserted one": (
        [
            (
                "DELTA",
                ["id"],
                [("upserted", keyed((1, "a"), (2, "b"))), ("deleted", keyed((1, "x")))],
            )
        ],
        [["2", "b"]],
    ),
    "an upserted chunk after a deleted one": (
        [
            ("REPLACE", None, [("upserted", keyed((1, "a"), (2, "b")))]),
            (
                "DELTA",
                ["id"],
                [("deleted", keyed((1, "x"), (2, "x"))), ("upserted", keyed((1, "new")))],
            ),
        ],
        [["1", "new"]],
    ),
    "delete with a file of keys only": (
        [
            ("REPLACE", None, [("upserted", keyed((1, "a"), (2, "b")))]),
            ("DELETE", ["id"], [("deleted", pa.table({"ID": [2, 7]}))]),
        ],
        [["1", "a"]],
    ),
    "rows with a null key are appended each time": (
        [("DELTA", ["id"], [("upserted", keyed((None, "a"), (None, "b"), (1, "c")))])] * 2,
        [["1", "c"], [None, "a"], [None, "a"], [None, "b"], [None, "b"]],
    ),
    "column order and case in the file do not matter": (
        [
            ("REPLACE", None, [("upserted", keyed((1, "a")))]),
            ("DELTA", None, [("upserted", pa.table({"V": ["b"], "ID": [2]}))]),
        ],
        [["1", "a"], ["2", "b"]],
    ),
    "a column that the file lacks becomes null": (
        [
            ("REPLACE", None, [("upserted", keyed((1, "a")))]),
            ("DELTA", ["id"], [("upserted", pa.table({"id": [1]}))]),
        ],
        [["1", None]],
    ),
    "a chunk of no rows": (
        [("REPLACE", None, [("upserted", keyed())])],
        [],
    ),
}


@pytest.mark.parametrize("name", JOBS)
def test_jobs(push: Push, table: str, name: str) -> None:
    steps, expected = JOBS[name]
    for kind, keys, chunks in steps:
        job = push.create(table, kind.replace("DELETE", "DELTA"), keys=keys)
        for chunk_kind, content in chunks:
            push.send(job, content, chunk_kind)
        assert push.run(job)["status"] == "DONE"
    assert rows(push.server, table) == expected


def test_a_large_upsert_touches_each_key_once(push: Push, table: str) -> None:
    """So many rows that DuckDB writes them out before the job's transaction ends."""
    count = 400_000
    for value in ("a", "b"):
        chunks = [
            {"id": range(start, start + count // 2), "v": [value] * (count // 2)}
            for start in (0, count // 2 - 1000)
        ]
        push.load(table, *chunks, type="DELTA", keys=["id"])
    found = push.server.rows(f'SELECT count(*), count(DISTINCT id), min(v) FROM local."{table}"')
    assert found == [[str(count - 1000), str(count - 1000), "b"]]


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([keyed((1, "b"), (1, "a"))], "b"),
        ([keyed((1, "b")), keyed((1, "a"))], "b"),
        ([keyed((1, "a"), (1, None))], "a"),
    ],
)
@pytest.mark.parametrize("kind", ["REPLACE", "DELTA"])
def test_duplicate_removal_keeps_the_greatest(
    push: Push, table: str, kind: str, chunks: list[Any], expected: str
) -> None:
    push.load(table, keyed((1, "zz")))
    job = push.create(table, kind, keys=["id"])
    for chunk in chunks:
        push.send(job, chunk)
    assert push.run(job, duplicateRemovalColumn="V")["status"] == "DONE"
    assert rows(push.server, table) == [["1", expected]]


def test_duplicate_removal_by_an_unknown_column(push: Push, table: str) -> None:
    job = push.create(table, "DELTA", keys=["id"])
    push.send(job, keyed((1, "a")))
    shown = push.run(job, duplicateRemovalColumn="nothing")
    assert shown["status"] == "ERROR"
    assert "nothing" in shown["logs"][0]


def test_replace_forgets_columns_and_lengths(push: Push, table: str) -> None:
    push.load(table, {"s": ["a"], "gone": [1]}, **schema(s=("STRING", 300)))
    assert push.server.columns(table) == {"s": ("STRING", 1200), "gone": ("INTEGER", None)}
    push.load(table.upper(), {"s": ["a"]})
    assert push.server.columns(table) == {"s": ("STRING", 320)}
    names = [t["name"] for t in push.server.get("/integration/api/pools/local/tables").json()]
    assert table.upper() in names
    assert table not in names


def test_replace_without_chunks(push: Push, table: str) -> None:
    push.load(table, {"a": [1]})
    shown = push.load(table, status="ERROR")
    assert "no chunk" in shown["logs"][0]
    assert rows(push.server, table) == [["1"]]
    push.load(table, **schema(b="INTEGER"))
    assert rows(push.server, table) == []
    assert push.server.columns(table) == {"b": ("INTEGER", None)}


def test_delta_without_chunks_does_nothing(push: Push, table: str) -> None:
    push.load(table, type="DELTA")
    assert push.server.described(table) is None


def test_deletes_from_a_missing_table_change_nothing(push: Push, table: str) -> None:
    job = push.create(table, "DELTA", keys=["id"])
    push.send(job, {"id": [1]}, "deleted")
    assert push.run(job)["status"] == "DONE"
    assert push.server.described(table) is None


def test_delta_to_a_missing_table_can_be_switched_to_fail(harsh: Push, table: str) -> None:
    shown = harsh.load(table, {"a": [1]}, type="DELTA", status="ERROR")
    assert "does not exist" in shown["logs"][0]
    harsh.load(table, {"a": [1]})
    harsh.load(table, {"a": [1]}, type="DELTA")


# Text lengths

LENGTHS: dict[str, tuple[dict[str, Any], int]] = {
    "undeclared": ({}, 80),
    "declared without length": (schema(s="STRING"), 80),
    "declared": (schema(s=("STRING", 100)), 100),
    "declared in other case": (schema(S=("STRING", 100)), 100),
    "fallback": ({"fallbackVarcharLength": 90}, 90),
    "declared beats fallback": (schema(s=("STRING", 7)) | {"fallbackVarcharLength": 90}, 7),
    "fallback for what is declared without length": (
        schema(s="STRING") | {"fallbackVarcharLength": 90},
        90,
    ),
}


@pytest.mark.parametrize("kind", ["REPLACE", "DELTA"])
@pytest.mark.parametrize("name", LENGTHS)
def test_texts_are_cut_in_characters_and_counted(
    push: Push, table: str, name: str, kind: str
) -> None:
    fields, length = LENGTHS[name]
    texts = ["ü" * 300, "😀" * length, "x" * (length + 1), None]
    push.load(table, {"s": texts}, type=kind, **fields)
    expected = {"ü" * length, "😀" * length, "x" * length, None}
    assert {row[0] for row in rows(push.server, table)} == expected
    assert push.server.history(table)[0]["truncated_values"] == 2
    ((_, listed),) = push.server.columns(table).values()
    assert listed == 4 * length


@pytest.mark.parametrize("keys", [None, ["id"]])
def test_delta_cuts_at_the_length_of_the_table(push: Push, table: str, keys: Any) -> None:
    push.load(table, {"id": [1], "s": ["a"]}, **schema(id="INTEGER", s=("STRING", 10)))
    wider = schema(id="INTEGER", s=("STRING", 50))
    push.load(table, {"id": [2], "s": ["b" * 50]}, type="DELTA", keys=keys, **wider)
    assert rows(push.server, table, "s") == [["a"], ["b" * 10]]
    assert push.server.columns(table)["s"] == ("STRING", 40)


def test_a_cut_key_matches_the_stored_one(push: Push, table: str) -> None:
    key = "k" * 100
    for value in (1, 2):
        push.load(table, {"k": [key], "v": [value]}, type="DELTA", keys=["k"])
    assert rows(push.server, table) == [["k" * 80, "2"]]


def test_oversize_error(harsh: Push, table: str) -> None:
    harsh.load(table, {"s": ["old"]})
    for kind in ("REPLACE", "DELTA"):
        shown = harsh.load(table, {"s": ["x" * 81]}, type=kind, status="ERROR")
        assert "longer than 80" in shown["logs"][0]
    assert rows(harsh.server, table) == [["old"]]


def test_oversize_widen(start_server: StartServer, table: str) -> None:
    push = Push(start_server("--oversize", "widen"))
    push.load(table, {"s": ["x" * 81, "a"]})
    push.load(table, {"s": ["y" * 90]}, {"s": ["z" * 85]}, type="DELTA")
    assert {len(row[0]) for row in rows(push.server, table)} == {1, 81, 90, 85}
    assert push.server.columns(table) == {"s": ("STRING", 360)}
    assert [job["truncated_values"] for job in push.server.history(table)] == [0, 0]


# Differences between file, job and table

NULLIFY = {"upsertStrategy": "UPSERT_WITH_NULLIFICATION"}
UNCHANGED = {"upsertStrategy": "UPSERT_WITH_UNCHANGED_METADATA"}
EXTRA = {"id": [2], "v": ["b"], "more": [1.5]}
MISSING = {"id": [2]}
# (file, fields of the job, end when lenient, end when strict)
DIFFERENCES: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "same": ({"id": [2], "v": ["b"]}, {}, "DONE", "DONE"),
    "same with strategy": ({"ID": [2], "V": ["b"]}, UNCHANGED, "DONE", "DONE"),
    "extra column": (EXTRA, {}, "ERROR", "ERROR"),
    "extra column, unchanged": (EXTRA, UNCHANGED, "ERROR", "ERROR"),
    "extra column, nullified": (EXTRA, NULLIFY, "DONE", "DONE"),
    "missing column": (MISSING, {}, "DONE", "ERROR"),
    "missing column, nullified": (MISSING, NULLIFY, "DONE", "DONE"),
    "text for an integer": ({"id": ["2"], "v": ["b"]}, {}, "ERROR", "ERROR"),
    "integer for a text": ({"id": [2], "v": [7]}, {}, "ERROR", "ERROR"),
    "integer for a text, nullified": ({"id": [2], "v": [7]}, NULLIFY, "ERROR", "ERROR"),
    "float for an integer": ({"id": [2.5], "v": ["b"]}, {}, "ERROR", "ERROR"),
    "another type declared": ({"id": [2], "v": ["b"]}, schema(v="DATE"), "ERROR", "ERROR"),
    "integer for a float": ({"id": [2], "v": ["b"], "f": [3]}, {}, "DONE", "ERROR"),
}


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", DIFFERENCES)
def test_differences_of_a_delta(
    push: Push, harsh: Push, table: str, name: str, strict: bool
) -> None:
    push = harsh if strict else push
    content, fields, lenient_end, strict_end = DIFFERENCES[name]
    base: dict[str, Any] = {"id": [1], "v": ["a"]}
    if "f" in content:
        base["f"] = [0.5]
    push.load(table, base)
    before = push.server.described(table)
    end = strict_end if strict else lenient_end
    shown = push.load(table, content, type="DELTA", keys=["id"], status=end, **fields)
    if end == "ERROR":
        assert shown["logs"][0].endswith("The table is unchanged.")
        assert push.server.described(table) == before
    elif "more" in content:
        assert rows(push.server, table) == [["1", "a", None], ["2", "b", "1.5"]]
    else:
        assert len(rows(push.server, table)) == 2


def test_an_added_text_column_gets_its_declared_length(push: Push, table: str) -> None:
    push.load(table, {"id": [1]})
    fields = NULLIFY | schema(id="INTEGER", s=("STRING", 200))
    push.load(table, {"id": [1], "s": ["x" * 300]}, type="DELTA", keys=["id"], **fields)
    assert rows(push.server, table) == [["1", "x" * 200]]
    assert push.server.columns(table)["s"] == ("STRING", 800)


def test_a_failing_later_chunk_leaves_the_table_as_it_was(push: Push, table: str) -> None:
    push.load(table, keyed((1, "a")))
    good, bad = {"id": [2], "v": ["b"]}, {"id": ["no number"], "v": ["b"]}
    for kind, keys in (("REPLACE", None), ("DELTA", None), ("DELTA", ["id"])):
        push.load(table, good, bad, type=kind, keys=keys, status="ERROR")
        assert rows(push.server, table) == [["1", "a"]]


def test_a_damaged_file_ends_the_job_with_an_error(push: Push, table: str) -> None:
    content = bytearray(parquet({"s": [f"{n:09}" for n in range(50_000)]}, compression="gzip"))
    content[4000:60_000] = bytes(56_000)
    job = push.create(table)
    assert push.upload(job, bytes(content)).status_code == 200
    shown = push.run(job)
    assert shown["status"] == "ERROR"
    assert shown["logs"]
    assert push.server.described(table) is None


@pytest.mark.parametrize(
    "name", ['q"uote', "Ünï cöde", "with.dot", "select", "a'b", "semi;colon", "日本", " blank "]
)
def test_names_may_hold_anything(push: Push, name: str) -> None:
    content = {f"id {name}": [1], name: ["a"]}
    push.load(name, content, **schema(**{name: ("STRING", 5)}))
    push.load(name.upper(), content, type="DELTA", keys=[f"ID {name}".upper()])
    described = push.server.described(name)
    assert described is not None
    assert described["rows"] == 1
    assert push.server.columns(name.upper())[name] == ("STRING", 20)


def test_connections_and_pools_have_schemas_of_their_own(push: Push, table: str) -> None:
    push.load(table, {"a": [1]})
    push.load(table, {"a": [2]}, connectionId="erp")
    Push(push.server, pool="other").load(table, {"a": [3]})
    for where, value in (("local", "1"), ("local_erp", "2"), ("other", "3")):
        assert rows(push.server, table, where=where) == [[value]]
    push.load(table, {"a": [4]}, type="DELTA", connectionId="erp")
    assert rows(push.server, table) == [["1"]]
