"""The SQL of data jobs: what may run, what it does to lengths of texts, how scripts are cut."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celonis_emulator.jobsql import split

from .conftest import Push, StartServer
from .test_data_jobs import POOL, DataJob

BROKEN = {
    "a syntax error": ("CREATE TABLE {t} (a INTEGER); SELEC 1", "syntax", ["CREATE"]),
    "an open quote": ("CREATE TABLE {t} (a INTEGER); SELECT 'a;", "unterminated", ["CREATE"]),
    "an unknown table": ("SELECT * FROM no_such_table", "no_such_table", []),
    "a Python name": ("SELECT * FROM session", "session", []),
    "a file": ("SELECT * FROM read_csv('{secret}')", "disabled", []),
    "a file by its name": ("SELECT * FROM '{secret}'", "disabled", []),
    "a copy to a file": ("COPY (SELECT 1) TO '{secret}'", "not run COPY", []),
    "another database": ("ATTACH '{secret}' AS x", "not run ATTACH", []),
    "an extension": ("INSTALL httpfs", "not run INSTALL", []),
    "a setting": ("SET memory_limit = '1GB'", "not run SET", []),
    "a schema to stay in": ("USE _celonis", "not run USE", []),
    "a pragma": ("PRAGMA database_list", "not run PRAGMA", []),
    "a hidden statement": ("PREPARE p AS DELETE FROM _celonis.pools", "not run PREPARE", []),
    "the bookkeeping": ("DELETE FROM _celonis.pools", "emulator's own", []),
    "the bookkeeping quoted": ('DROP TABLE "_Celonis"."pools"', "emulator's own", []),
    "the bookkeeping's schema": ("DROP SCHEMA '_celonis' CASCADE", "emulator's own", []),
    "the bookkeeping in a query": (
        "WITH gone AS (DELETE FROM _celonis.pools RETURNING *) SELECT * FROM gone",
        "emulator's own",
        [],
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_sql_that_fails(push: Push, table: str, case: str) -> None:
    sql, words, done = BROKEN[case]
    secret = push.server.database.with_name("secret.csv")
    secret.write_text("a\n1\n")
    job = DataJob(push.server, (sql.format(t=table, secret=secret),))
    job.run("FAIL")
    first, _, *rest = job.log("1")
    assert words in first
    assert [line.split()[0] for line in rest] == done
    assert secret.read_text() == "a\n1\n"
    assert push.server.get(POOL).status_code == 200


def test_chunks_are_read_wherever_the_database_lies(
    start_program: StartServer, tmp_path: Path
) -> None:
    """SQL reaches no files; those of chunks it must reach, by a relative path too."""
    (odd := tmp_path / "it's [a] *").mkdir()
    push = Push(start_program(database=Path("relative.duckdb"), cwd=odd))
    push.load("t", {"id": [1]})
    job = push.create("c", fileType="CSV")
    assert push.upload(job, b"a\nx\n").status_code == 200
    assert push.run(job)["status"] == "DONE"
    assert (odd / "relative.duckdb").exists()
    copy = f"COPY local.t TO '{odd / 'relative.duckdb.chunks'}/x.csv'"
    answer = push.server.post("/_emulator/query", json={"sql": copy})
    assert answer.status_code == 400
    assert push.server.rows("SELECT * FROM local.t, local.c") == [["1", "x"]]


def test_transactions_are_not_for_scripts(push: Push, table: str) -> None:
    job = DataJob(
        push.server,
        (
            (
                f"BEGIN; CREATE TABLE {table} AS SELECT 1 AS a; COMMIT; ROLLBACK; COMMIT;"
                f"SELECT ANALYZE_STATISTICS('{table}');"
            ),
        ),
    )
    job.run()
    assert push.server.rows(f"SELECT * FROM local.{table}") == [["1"]]


def test_names_like_the_bookkeeping_are_free(push: Push, table: str) -> None:
    sql = (
        f"CREATE TABLE {table} AS SELECT 'x' AS \"_CELONIS_CHANGE_DATE\", '_celonis_' AS my_celonis"
    )
    DataJob(push.server, (sql,)).run()
    assert push.server.rows(f"SELECT * FROM local.{table}") == [["x", "_celonis_"]]


# SQL on tables whose names begin with {t}; {t} was pushed with a text of 20 characters.
LENGTHS: dict[str, tuple[str, str, dict[str, int]]] = {
    "made by a query": ("CREATE TABLE {t}_x AS SELECT * FROM {t}", "{t}_x", {"s": 65_000}),
    "declared in octets": (
        (
            'CREATE TABLE {t}_x (a INTEGER, "B ""c"", (" VARCHAR(400) NOT NULL DEFAULT \'x\', '
            "c CHARACTER VARYING (10), n DECIMAL(10, 2), d TEXT, e varchar(3))"
        ),
        "{t}_x",
        {'B "c", (': 400, "c": 8, "d": 65_000, "e": 4},
    ),
    "a temporary table is not one of the pool's": (
        "CREATE TEMP TABLE {t} (s VARCHAR(8))",
        "{t}",
        {"s": 80},
    ),
    "there already": ("CREATE TABLE IF NOT EXISTS {t} (s VARCHAR(8))", "{t}", {"s": 80}),
    "made anew": ("DROP TABLE {t}; CREATE TABLE {t} AS SELECT 'x' AS s", "{t}", {"s": 65_000}),
    "replaced": (
        "CREATE OR REPLACE TABLE {t} (S VARCHAR(8), r VARCHAR)",
        "{t}",
        {"S": 8, "r": 65_000},
    ),
    "renamed": ("ALTER TABLE {t} RENAME TO {t}_x", "{t}_x", {"s": 80}),
    "put in place": (
        "CREATE TABLE {t}_x (s VARCHAR(8)); DROP TABLE {t}; ALTER TABLE {t}_x RENAME TO {t}",
        "{t}",
        {"s": 8},
    ),
    "changed otherwise": (
        (
            "ALTER TABLE {t} ADD COLUMN r VARCHAR; ALTER TABLE {t} DROP COLUMN id; "
            "CREATE VIEW {t}_v AS SELECT 1; DROP VIEW {t}_v"
        ),
        "{t}",
        {"s": 80, "r": 65_000},
    ),
    "dropped and added": (
        "ALTER TABLE {t} DROP COLUMN s; ALTER TABLE {t} ADD COLUMN s VARCHAR",
        "{t}",
        {"s": 65_000},
    ),
    "rolled back": ("CREATE OR REPLACE TABLE {t} AS SELECT error('no') AS s", "{t}", {"s": 80}),
}


@pytest.mark.parametrize("case", LENGTHS)
def test_lengths_of_texts(push: Push, table: str, case: str) -> None:
    sql, shown, expected = LENGTHS[case]
    push.load(table, {"id": [1], "s": ["x"]}, fallbackVarcharLength=20)
    DataJob(push.server, (sql.format(t=table),)).run("FAIL" if case == "rolled back" else "SUCCESS")
    columns = push.server.columns(shown.format(t=table))
    assert {name: length for name, (_, length) in columns.items() if length} == expected


def test_a_push_cuts_at_the_length_that_sql_declares(push: Push, table: str) -> None:
    DataJob(push.server, (f"CREATE TABLE {table} (s VARCHAR(8))",)).run()
    push.load(table, {"s": ["longer"]}, type="DELTA")
    assert push.server.rows(f"SELECT s FROM local.{table}") == [["lo"]]


def test_jobs_and_pushes_change_one_table(push: Push, table: str) -> None:
    """Neither waits for the other, and nothing is lost."""
    push.load(table, {"id": [0], "v": [0]})
    statement = f"UPDATE {table} SET v = v + 1 WHERE id = 0"
    job = DataJob(push.server, ("; ".join([statement] * 40),))
    assert job.execute().status_code == 200
    for number in range(1, 6):
        push.load(table, {"id": [number], "v": [0]}, type="DELTA", keys=["id"])
    assert job.ended()["status"] == "SUCCESS", job.log("1")
    rows = push.server.rows(f"SELECT id, v FROM local.{table} ORDER BY 1")
    assert rows == [["0", "40"], *([str(number), "0"] for number in range(1, 6))]


# Pure


SCRIPTS: dict[str, list[str]] = {
    "": [],
    " ; ;; -- nothing;\n/* at; all */ ;": [],
    "a": ["a"],
    "SELECT 1; SELECT 2": ["SELECT 1", "SELECT 2"],
    "SELECT ';' ; SELECT \";\"": ["SELECT ';'", 'SELECT ";"'],
    "SELECT 1 -- one; two\n; SELECT $$ ; $$": ["SELECT 1 -- one; two", "SELECT $$ ; $$"],
    "-- first\nSELECT 'ä;€;😀'; SELECT 2;": ["SELECT 'ä;€;😀'", "SELECT 2"],
    "SELECT 'it''s;'; SELECT 'open;": ["SELECT 'it''s;'", "SELECT 'open;"],
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_splitting(script: str) -> None:
    assert [statement.text for statement in split(script)] == SCRIPTS[script]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))))
def test_texts_in_scripts_survive_splitting(texts: list[str]) -> None:
    forms = itertools.cycle((("SELECT '{}'", "'"), ('SELECT 1 AS "x{}"', '"')))
    written = [
        form.replace("{}", text.replace(quote, quote * 2))
        for text, (form, quote) in zip(texts, forms, strict=False)
    ]
    assert [statement.text for statement in split(";\n".join(written))] == written


DECLARED: dict[str, dict[str, int]] = {
    "CREATE TABLE t (a VARCHAR(80), B varchar ( 7 ) NOT NULL, c INTEGER)": {"a": 20, "b": 1},
    "create or replace table p.t (a char(8), b nvarchar(9), c bpchar(12), d text)": {
        "a": 2,
        "b": 2,
        "c": 3,
    },
    'CREATE TEMP TABLE IF NOT EXISTS "(" ("a,b" CHARACTER VARYING(40), x DECIMAL(10,2))': {
        "a,b": 10
    },
    "CREATE TABLE t (a INTEGER CHECK (a > (1)), b VARCHAR(4), PRIMARY KEY (a))": {"b": 1},
    "CREATE TABLE t AS SELECT CAST(x AS VARCHAR(4)) AS a FROM (SELECT 1 AS x)": {},
    "CREATE VIEW v AS SELECT (1)": {},
    "CREATE TABLE t (": {},
    "SELECT 1": {},
    "ALTER TABLE t ADD COLUMN a VARCHAR(4)": {},
}


@pytest.mark.parametrize("sql", DECLARED)
def test_declared_lengths(sql: str) -> None:
    (statement,) = split(sql)
    assert statement.declared_characters == DECLARED[sql]
