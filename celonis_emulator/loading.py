"""Applies an executed job to its table: the SQL of REPLACE, append, upsert and delete.

Hides: how chunks become rows; the staging of keyed chunks; cutting and counting of long texts.
Guarantees: :meth:`Load.stage` reads and checks but changes nothing, :meth:`Load.apply` does all
changes in the caller's transaction; the outcome is that of the chunks one by one in upload order.
A job that cannot be applied raises :class:`LoadFailed` with a sentence for its log.
Must not know: HTTP, who calls, the state of a job, where time comes from.

Keyed chunks are merged in a temporary table first, and the pool's table is changed once: DuckDB
does not find all rows that the same transaction inserted when it is to delete them again.
"""

# ruff: noqa: S608 - names in SQL are quoted identifiers, values are parameters or quoted
from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from celonis_emulator.columns import (
    DEFAULT_TEXT_CHARACTERS,
    DUCKDB_TYPES,
    Column,
    FileColumn,
    celonis_type,
    fits,
    folded,
    quoted,
    stored_value,
)
from celonis_emulator.warehouse import (
    PoolTable,
    add_column,
    create_table,
    drop_table,
    find_table,
    schema_name,
    table_columns,
    widen_column,
)

if TYPE_CHECKING:
    import duckdb

    from celonis_emulator.chunkfiles import ChunkFile
    from celonis_emulator.jobs import Job
    from celonis_emulator.switches import Switches


class LoadFailed(Exception):  # noqa: N818
    """The job cannot be applied; the text goes to its log."""


@dataclass(frozen=True)
class LoadResult:
    """What a job did to its table."""

    rows_written: int = 0
    rows_removed: int = 0
    truncated_values: int = 0


class Load:
    """One job at work; ``cursor`` is its own."""

    def __init__(
        self,
        cursor: duckdb.DuckDBPyConnection,
        job: Job,
        files: list[ChunkFile],
        switches: Switches,
    ) -> None:
        self._cursor = cursor
        self._job = job
        self._files = files
        self._switches = switches
        self._declared = {folded(c.name): c for c in job.declared_columns}
        schema = schema_name(job.pool_id, job.connection_id)
        self._found = find_table(cursor, schema, job.table)
        self._table = PoolTable(schema, job.table)
        self._creates = self._found is None or job.type == "REPLACE"
        self._columns: list[Column] = []
        self._added: list[Column] = []
        self._widened: set[str] = set()
        self._truncated = 0

    @property
    def _staged(self) -> bool:
        merges = self._job.type == "DELTA" or self._job.duplicate_removal_column is not None
        return bool(self._job.keys) and merges

    # First phase: read, check, merge; the pool is not touched

    def stage(self) -> None:
        """Compare the files with the table, and merge keyed chunks in a temporary table.

        Raises:
            LoadFailed: the job cannot be applied.
        """
        upserted = [file for file in self._files if file.kind == "UPSERT"]
        self._settle_table(upserted)
        for file in upserted:
            self._fit(file)
        for file in upserted:
            self._handle_long_texts(file)
        if self._staged and self._columns:
            self._merge()

    def _settle_table(self, upserted: list[ChunkFile]) -> None:
        """Decide what table and columns the chunks go to."""
        if not self._creates and self._found is not None:
            if self._found.kind != "TABLE":
                msg = f"{self._found.name} is a view and cannot be pushed to."
                raise LoadFailed(msg)
            self._table = self._found
            self._columns = table_columns(self._cursor, self._found)
            self._compare_declared()
            return
        if self._job.type == "DELTA":
            if self._switches.delta_missing_table == "error":
                msg = f"The table {self._job.table} does not exist."
                raise LoadFailed(msg)
            if not upserted:
                self._creates = False
                return
        self._columns = [
            Column(c.name, c.type, self._declared_length(c.name) if c.type == "STRING" else None)
            for c in self._job.declared_columns
        ]
        in_file = upserted[0].columns if upserted else ()
        self._columns += [
            self._column_of(c) for c in in_file if folded(c.name) not in self._declared
        ]
        if not self._columns:
            msg = f"No column of the table {self._job.table} is known: no chunk, no tableSchema."
            raise LoadFailed(msg)

    def _column_of(self, column: FileColumn) -> Column:
        """Return the table column that a file's column becomes."""
        declared = self._declared.get(folded(column.name))
        kind = declared.type if declared else _file_type(column)
        length = self._declared_length(column.name) if kind == "STRING" else None
        return Column(column.name, kind, length)

    def _declared_length(self, name: str) -> int:
        declared = self._declared.get(folded(name))
        length = declared.length_characters if declared else None
        return length or self._job.fallback_characters or DEFAULT_TEXT_CHARACTERS

    def _compare_declared(self) -> None:
        """Refuse a DELTA whose declared types differ from the table's."""
        for column in self._columns:
            declared = self._declared.get(folded(column.name))
            if declared and declared.type != column.type:
                msg = (
                    f"Column {column.name}: the table has type {column.type}, "
                    f"the job declares {declared.type}."
                )
                raise LoadFailed(msg)

    def _fit(self, file: ChunkFile) -> None:
        """Compare a file's columns with the table's; let in what the job's strategy allows."""
        in_file = {folded(column.name): column for column in file.columns}
        in_table = {folded(column.name): column for column in self._columns}
        extra = [column for name, column in in_file.items() if name not in in_table]
        if extra and not self._job.adds_columns:
            names = ", ".join(column.name for column in extra)
            msg = f"The table {self._table.name} has no column named: {names}."
            raise LoadFailed(msg)
        missing = [column.name for name, column in in_table.items() if name not in in_file]
        strict = self._switches.strict_metadata and not self._creates
        if missing and strict and not self._job.adds_columns:
            msg = f"The file lacks columns of the table {self._table.name}: {', '.join(missing)}."
            raise LoadFailed(msg)
        added = [self._column_of(column) for column in extra]
        self._columns += added
        self._added += added
        for column in [] if file.is_text else self._columns:
            incoming = in_file.get(folded(column.name))
            if incoming is None:
                continue
            kind = _file_type(incoming)
            # Strictly, what was not declared must already be of the table's type.
            loose = not strict or folded(column.name) in self._declared
            if kind != column.type and not (loose and fits(kind, column.type)):
                msg = (
                    f"Column {column.name}: the table has type {column.type}, the file has "
                    f"{kind} ({incoming.duckdb_type})."
                )
                raise LoadFailed(msg)

    def _handle_long_texts(self, file: ChunkFile) -> None:
        """Count the texts longer than their column; refuse them or widen, as switched."""
        values = self._values(file)
        limits = {
            column.name: column.length_characters
            for column in self._columns
            if column.name in values and column.length_characters is not None
        }
        if not limits:
            return
        asked = ", ".join(
            f"count(*) FILTER (length({values[name]}) > {limit}), max(length({values[name]}))"
            for name, limit in limits.items()
        )
        row = self._cursor.execute(f"SELECT {asked} FROM {file.relation}").fetchone() or ()
        for position, (name, limit) in enumerate(limits.items()):
            over, longest = row[2 * position], row[2 * position + 1]
            if over and self._switches.oversize == "error":
                msg = f"Column {name}: {over} values are longer than {limit} characters."
                raise LoadFailed(msg)
            if over and self._switches.oversize == "widen":
                self._widen(name, longest)
            elif over:
                self._truncated += over

    def _widen(self, name: str, length_characters: int) -> None:
        self._widened.add(name)
        self._columns = [
            replace(column, length_characters=length_characters) if column.name == name else column
            for column in self._columns
        ]

    def _merge(self) -> None:
        """Gather all chunks in ``stage``, and in ``winners`` the last row of every key."""
        keys = self._key_columns()
        spelled = [f"{_at(i)} {DUCKDB_TYPES[c.type]}" for i, c in enumerate(self._columns)]
        # A run is a row of neighbouring chunks of one kind.
        self._cursor.execute(
            f"CREATE TEMP TABLE stage ({', '.join(spelled)}, run INTEGER, deletes BOOLEAN)"
        )
        runs = itertools.groupby(self._files, key=lambda file: file.kind)
        for run, (kind, files) in enumerate(runs):
            for file in files:
                values = self._cut_values(file)
                wanted = [
                    i
                    for i, c in enumerate(self._columns)
                    if c.name in values and (kind == "UPSERT" or _at(i) in keys)
                ]
                names = ", ".join(_at(i) for i in wanted)
                selected = ", ".join(values[self._columns[i].name] for i in wanted)
                self._cursor.execute(
                    f"INSERT INTO stage ({names}, run, deletes) "
                    f"SELECT {selected}, {run}, {kind == 'DELETE'} FROM {file.relation}"
                )
        by_key = ", ".join(keys)
        whole = " AND ".join(f"{key} IS NOT NULL" for key in keys)
        newest = self._removal_column()
        if newest is None and self._switches.duplicate_keys == "error":
            self._refuse_duplicates(by_key, whole)
        # Row ids of a table filled in order grow in that order.
        last = f"SELECT max(rowid) AS id FROM stage WHERE {whole} GROUP BY {by_key}"
        if newest:
            last = (
                f"SELECT id FROM (SELECT rowid AS id, row_number() OVER (PARTITION BY {by_key} "
                f"ORDER BY run DESC, {newest} DESC NULLS LAST, rowid DESC) AS place "
                f"FROM stage WHERE {whole}) WHERE place = 1"
            )
        self._cursor.execute(
            f"CREATE TEMP TABLE winners AS {last} "
            f"UNION ALL SELECT rowid FROM stage WHERE NOT ({whole})"
        )

    def _refuse_duplicates(self, by_key: str, whole: str) -> None:
        twice = self._count(
            f"SELECT count(*) FROM (SELECT 1 FROM stage WHERE {whole} AND NOT deletes "
            f"GROUP BY {by_key} HAVING count(*) > 1)"
        )
        if twice:
            raise LoadFailed(f"{twice} keys come more than once in the job's chunks.")

    def _key_columns(self) -> list[str]:
        places = {folded(column.name): i for i, column in enumerate(self._columns)}
        absent = [key for key in self._job.keys if folded(key) not in places]
        if absent:
            msg = f"The table {self._table.name} has no key column named: {', '.join(absent)}."
            raise LoadFailed(msg)
        return [_at(places[folded(key)]) for key in self._job.keys]

    def _removal_column(self) -> str | None:
        wanted = self._job.duplicate_removal_column
        if wanted is None:
            return None
        for i, column in enumerate(self._columns):
            if folded(column.name) == folded(wanted):
                return _at(i)
        msg = f"The duplicate removal column {wanted} does not exist."
        raise LoadFailed(msg)

    # Second phase: change the table

    def apply(self) -> LoadResult:
        """Change the table, in the transaction that the cursor has open."""
        if not self._columns:
            return LoadResult()
        self._change_table()
        if not self._staged:
            written = sum(self._append(file) for file in self._files)
            return LoadResult(written, 0, self._truncated)
        removed = 0 if self._creates else self._remove_matching()
        names = ", ".join(quoted(column.name) for column in self._columns)
        places = ", ".join(_at(i) for i in range(len(self._columns)))
        written = self._count(
            f"INSERT INTO {self._table.sql} ({names}) SELECT {places} FROM stage "
            "WHERE NOT deletes AND rowid IN (SELECT id FROM winners)"
        )
        return LoadResult(written, removed, self._truncated)

    def _change_table(self) -> None:
        if self._creates:
            if self._found is not None:
                drop_table(self._cursor, self._found)
            create_table(self._cursor, self._table, self._columns)
            return
        added = {column.name for column in self._added}
        for column in self._columns:
            if column.name in added:
                add_column(self._cursor, self._table, column)
            elif column.name in self._widened:
                widen_column(self._cursor, self._table, column)

    def _append(self, file: ChunkFile) -> int:
        values = self._cut_values(file)
        names = ", ".join(quoted(name) for name in values)
        return self._count(
            f"INSERT INTO {self._table.sql} ({names}) "
            f"SELECT {', '.join(values.values())} FROM {file.relation}"
        )

    def _remove_matching(self) -> int:
        names = {_at(i): quoted(column.name) for i, column in enumerate(self._columns)}
        match = " AND ".join(f"t.{names[key]} = s.{key}" for key in self._key_columns())
        return self._count(
            f"DELETE FROM {self._table.sql} AS t "
            f"WHERE EXISTS (SELECT 1 FROM stage AS s WHERE {match})"
        )

    # SQL of values

    def _values(self, file: ChunkFile) -> dict[str, str]:
        """Return the SQL of each table column that the file has."""
        in_file = {folded(column.name): column for column in file.columns}
        values = {}
        for column in self._columns:
            incoming = in_file.get(folded(column.name))
            if incoming is not None and file.is_text:
                values[column.name] = file.text_value(incoming.name, column.type)
            elif incoming is not None:
                values[column.name] = stored_value(incoming, column.type)
        return values

    def _cut_values(self, file: ChunkFile) -> dict[str, str]:
        """Return the SQL of each column, texts cut at the column's length."""
        values = self._values(file)
        for column in self._columns:
            if column.length_characters is not None and column.name in values:
                # Qualified: a macro of that name in the file must not come before it.
                cut = f"system.main.left({values[column.name]}, {column.length_characters})"
                values[column.name] = cut
        return values

    def _count(self, sql: str) -> int:
        row = self._cursor.execute(sql).fetchone()
        return int(row[0]) if row else 0


def _file_type(column: FileColumn) -> str:
    kind = celonis_type(column.duckdb_type)
    if kind is None:
        msg = f"Column {column.name}: the file type {column.duckdb_type} is not supported."
        raise LoadFailed(msg)
    return kind


def _at(position: int) -> str:
    """Return the name of a staged column; a table's own names could collide with ours."""
    return f"c{position}"
