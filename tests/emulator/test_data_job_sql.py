"""The SQL of data jobs: what may run, what it does to lengths of texts, how scripts are cut."""

from __future__ import annotations

import itertools
from pathlib import Path

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from celonis_emulator.sqltext import split

from .conftest import Push, StartServer, eventually
from .test_data_jobs import POOL, DataJob

BROKEN = {
    "a syntax error": ("CREATE TABLE {t} (a INTEGER); SELEC 1", "syntax", ["CREATE"]),
    "an open quote": ("CREATE TABLE {t} (a INTEGER); SELECT 'a;", "unterminated", ["CREATE"]),
    "an unknown table": ("SELECT * FROM no_such_table", "no_such_table", []),
    "a Python name": ("SELECT * FROM session", "session", []),
    "a file": ("SELECT * FROM read_csv('{secret}')", "read_csv reaches beyond", []),
    "a file in quoted words": ("SELECT * FROM \"Read_Text\" ('{secret}')", "reaches beyond", []),
    "a file in a view": ("CREATE VIEW {t} AS SELECT * FROM glob('{chunks}/*')", "glob", []),
    "a chunk by its name": ("SELECT * FROM '{chunks}/*/*.parquet'", "files of chunks", []),
    "a chunk by its quoted name": ('SELECT * FROM "{chunks}/*/*.csv"', "files of chunks", []),
    "a copy to the chunks": ("COPY (SELECT 1) TO '{chunks}/x.csv'", "not run COPY", []),
    "a database in the chunks": ("ATTACH '{chunks}/x.duckdb' AS x", "not run ATTACH", []),
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
    "a hidden name of the bookkeeping": (
        "SELECT * FROM query_table('_cel' || 'onis.pools')",
        "query_table reaches beyond",
        [],
    ),
    "a hidden query": ("SELECT * FROM query(E'SELECT 1')", "query reaches beyond", []),
    "another pool's schema": ("DROP SCHEMA other CASCADE", "not run DROP SCHEMA", []),
    "the pool's schema": ("DROP /* */ schema IF EXISTS local CASCADE", "not run DROP SCHEMA", []),
    "a new schema": ("CREATE SCHEMA mine", "not run CREATE SCHEMA", []),
    "a macro": ("CREATE OR REPLACE MACRO main.left(s, n) AS 'gone'", "not run CREATE MACRO", []),
    "a temporary macro": ("CREATE TEMP MACRO cut(s, n) AS 'gone'", "not run CREATE MACRO", []),
    "a type": ("CREATE TYPE mood AS ENUM ('x')", "not run CREATE TYPE", []),
    "a table of another pool": ("SELECT 1; DELETE FROM other.kept", "other is not one", ["SELECT"]),
    "a table of another pool, quoted": ('INSERT INTO "Other".kept VALUES (1)', "not one of", []),
    "a table of another pool, in full": (
        "DROP TABLE _celonis_database.other.kept",
        "other is not one of",
        [],
    ),
    "a table of another pool, as an alias too": (
        "SELECT other.id FROM (SELECT 1 AS id) AS other, (SELECT * FROM other.kept)",
        "other is not one",
        [],
    ),
    "a query of another pool": ("CREATE TABLE {t} AS SELECT * FROM OTHER.kept", "not one of", []),
    "a table in no pool": ("CREATE TABLE main.{t} (id INTEGER)", "main is not one", []),
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
    chunks = push.server.database.with_name(push.server.database.name + ".chunks")
    other = Push(push.server, "other")
    assert push.server.post("/_emulator/pools", json={"id": "other"}).status_code == 200
    other.load("kept", {"id": [1]})
    # A chunk that waits, as something to be read.
    waiting = push.create(table)
    push.send(waiting, {"id": [1]})
    files = {path.name for path in chunks.iterdir()}
    job = DataJob(push.server, (sql.format(t=table, secret=secret, chunks=chunks),))
    job.run("FAIL")
    first, _, *rest = job.log("1")
    assert words in first
    assert [line.split()[0] for line in rest] == done
    assert secret.read_text() == "a\n1\n"
    assert {path.name for path in chunks.iterdir()} == files
    assert push.server.rows("SELECT * FROM other.kept") == [["1"]]
    push.server.session.delete(f"{push.server.url}{push.base}/{waiting}")
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


def test_another_pool_may_have_the_name_of_an_alias(push: Push, table: str) -> None:
    """Only its tables are out of reach; all connections of the pool are within."""
    assert push.server.post("/_emulator/pools", json={"id": "other"}).status_code == 200
    push.load(table, {"id": [1], "amount": [2]}, connectionId="erp")
    sql = (
        f"CREATE TABLE {table}_x AS SELECT other.amount FROM local_erp.{table} AS other "
        f"WHERE other.id = 1; UPDATE local.{table}_x AS other SET amount = other.amount + 1;"
        f"CREATE OR REPLACE VIEW {table}_v AS SELECT * FROM local.{table}_x;"
        "CREATE OR REPLACE TABLE other AS SELECT 1 AS id;"
        "SELECT other.id FROM local.other WHERE other.id = 1; DROP TABLE other"
    )
    DataJob(push.server, (sql,)).run()
    assert push.server.rows(f"SELECT * FROM local.{table}_v") == [["3"]]


def test_a_macro_of_an_older_file_does_not_change_what_is_pushed(
    start_server: StartServer, tmp_path: Path
) -> None:
    with duckdb.connect(str(tmp_path / "old.duckdb")) as connection:
        connection.execute("CREATE MACRO main.left(s, n) AS 'gone'")
    push = Push(start_server(database=tmp_path / "old.duckdb"))
    push.load("t", {"s": ["longer"]}, fallbackVarcharLength=3)
    assert push.server.rows("SELECT s FROM local.t") == [["lon"]]


WIDTHS: dict[str, tuple[str, dict[str, str]]] = {
    "declared": (
        (
            "CREATE TABLE {t} (id INT PRIMARY KEY, i INTEGER NOT NULL, s SMALLINT, "
            "f FLOAT, f2 FLOAT(24), r REAL, n NUMERIC, d DECIMAL(10, 2), int INT DEFAULT 1)"
        ),
        {
            **dict.fromkeys(("id", "i", "s", "int"), "BIGINT"),
            **dict.fromkeys(("f", "f2", "r"), "DOUBLE"),
            "n": "DECIMAL(37,15)",
            "d": "DECIMAL(10,2)",
        },
    ),
    "altered": (
        (
            "CREATE TABLE {t} (a VARCHAR, type INT); ALTER TABLE {t} ADD COLUMN b INT;"
            "ALTER TABLE {t} ADD c NUMERIC; ALTER TABLE {t} ALTER COLUMN a TYPE FLOAT"
        ),
        {"a": "DOUBLE", "type": "BIGINT", "b": "BIGINT", "c": "DECIMAL(37,15)"},
    ),
    "made by a query": (
        (
            "CREATE TABLE {t} AS SELECT 1 AS a, CAST(2.5 AS FLOAT) AS f, '1.23456'::NUMERIC AS n, "
            "sum(1) AS h, (SELECT 3 AS int) AS i, date_part('year', DATE '2020-01-01') AS y, "
            "1.5 AS x, 'INT' AS s, TRUE AS b"
        ),
        {
            **dict.fromkeys(("a", "i", "y"), "BIGINT"),
            "f": "DOUBLE",
            "n": "DECIMAL(37,15)",
            "h": "HUGEINT",
            "x": "DECIMAL(2,1)",
            "s": "VARCHAR",
            "b": "BOOLEAN",
        },
    ),
}


@pytest.mark.parametrize("case", WIDTHS)
def test_widths_of_numbers(push: Push, table: str, case: str) -> None:
    sql, expected = WIDTHS[case]
    DataJob(push.server, (sql.format(t=table),)).run()
    found = push.server.rows(f"DESCRIBE local.{table}")
    assert {name: kind for name, kind, *_ in found} == expected


def test_numbers_keep_their_digits(push: Push, table: str) -> None:
    job = DataJob(
        push.server,
        (
            (
                f"CREATE TABLE {table} AS SELECT 1 AS a, CAST(0.1 AS FLOAT) AS f;"
                f"UPDATE {table} SET a = 3000000000 WHERE a = 1;"
                f"INSERT INTO {table} VALUES (CAST('4000000000' AS INT), 0.1)"
            ),
        ),
    )
    job.run()
    rows = push.server.rows(f"SELECT a, f FROM local.{table} ORDER BY 1")
    assert rows == [["3000000000", "0.1"], ["4000000000", "0.1"]]


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
    """They take turns, and nothing is lost."""
    push.load(table, {"id": [0], "v": [0]})
    statement = f"UPDATE {table} SET v = v + 1 WHERE id = 0"
    job = DataJob(push.server, ("; ".join([statement] * 40),))
    assert job.execute().status_code == 200
    for number in range(1, 6):
        push.load(table, {"id": [number], "v": [0]}, type="DELTA", keys=["id"])
    assert job.ended()["status"] == "SUCCESS", job.log("1")
    rows = push.server.rows(f"SELECT id, v FROM local.{table} ORDER BY 1")
    assert rows == [["0", "40"], *([str(number), "0"] for number in range(1, 6))]


def test_columns_change_while_a_table_is_pushed(push: Push, table: str) -> None:
    """Each waits for the other's turn: no push ends ERROR, no statement fails."""
    push.load(table, {"id": [0], "v": [0]})
    put = {"id": f"m_{table}", "tables": [{"name": table}]}
    assert push.server.post("/_emulator/pools/local/data-models", json=put).status_code == 200
    statement = f"ALTER TABLE {table} ADD COLUMN x INT; ALTER TABLE {table} DROP COLUMN x"
    job = DataJob(push.server, ("; ".join([statement] * 60),), {"data_models": [put["id"]]})
    assert job.execute().status_code == 200
    for number in range(1, 9):
        push.load(table, {"id": [number], "v": [0]}, type="DELTA", keys=["id"])
    assert job.ended()["status"] == "SUCCESS", job.log("1")
    assert push.server.rows(f"SELECT count(*) FROM local.{table}") == [["9"]]


def test_a_push_waits_for_a_long_statement_and_can_be_canceled(
    start_server: StartServer,
) -> None:
    """Readers do not wait; cancel and the end of the server come through."""
    push = Push(start_server())
    push.load("t", {"id": [0]})
    endless = "UPDATE t SET id = (SELECT count(*) FROM range(1000000) a, range(1000000) b)"
    job = DataJob(push.server, (f"SELECT 1; {endless}",))

    def endless_runs() -> bool:
        return any(line.startswith("SELECT 1") for line in job.log("1"))

    assert job.execute().status_code == 200
    eventually(endless_runs, "the statement runs")
    pushed = push.create("t", "DELTA")
    push.send(pushed, {"id": [1]})
    assert push.execute(pushed).status_code == 200
    eventually(lambda: push.get(pushed)["status"] == "RUNNING", "the push job runs")
    assert push.server.rows("SELECT id FROM local.t") == [["0"]]
    assert push.server.post(f"{push.base}/{pushed}/cancel").status_code == 200
    assert push.wait(pushed)["status"] == "CANCELED"
    assert job.cancel().status_code == 200
    assert job.ended()["status"] == "CANCEL"
    # Again, and the server ends.
    assert job.execute().status_code == 200
    eventually(endless_runs, "the statement runs")
    pushed = push.create("t", "DELTA")
    push.send(pushed, {"id": [1]})
    assert push.execute(pushed).status_code == 200
    assert push.server.stop() == 0
    again = Push(start_server(database=push.server.database))
    assert again.server.rows("SELECT id FROM local.t") == [["0"]]
    assert again.get(pushed)["status"] == "ERROR"


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
