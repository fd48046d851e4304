"""CSV chunks: the job's ``csvParsingOptions`` and the SQL that reads by them.

Hides: Java date patterns, separators, character sets. Guarantees: every value is read as text and
parsed by the type of its column; an empty field is NULL.
Must not know: jobs, tables, HTTP.
"""

from __future__ import annotations

import codecs
import csv
import glob
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from celonis_emulator.columns import DUCKDB_TYPES, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_HEADER_BYTES: Final = 1 << 20
_JAVA_PARTS: Final = {
    "yyyy": "%Y",
    "uuuu": "%Y",
    "yy": "%y",
    "MM": "%m",
    "dd": "%d",
    "HH": "%H",
    "hh": "%I",
    "mm": "%M",
    "ss": "%S",
    "SSS": "%g",
    "SSSSSS": "%f",
    "a": "%p",
    "X": "%z",
    "XX": "%z",
    "XXX": "%z",
    "Z": "%z",
}


@dataclass(frozen=True)
class NumberAndDate:
    """How numbers and dates are spelled, in the file or in one column."""

    date_format: str | None = None
    thousand_separator: str | None = None
    decimal_separator: str | None = None


@dataclass(frozen=True)
class CsvDialect:
    """The parsing options with the server's defaults filled in."""

    separator: str = ","
    quote: str = '"'
    escape: str = '"'
    charset: str = "utf-8"
    spelling: NumberAndDate = NumberAndDate()
    columns: Mapping[str, NumberAndDate] = field(default_factory=dict)

    @classmethod
    def of(cls, options: Mapping[str, Any] | None) -> CsvDialect:
        """Read the options of a job; null is the default.

        Raises:
            LookupError: the character set is unknown.
        """
        given = {key: value for key, value in (options or {}).items() if value is not None}
        columns = {
            str(extra["columnName"]).lower(): NumberAndDate(
                extra.get("dateFormat"),
                extra.get("thousandsSeparator"),
                extra.get("decimalSeparator"),
            )
            for extra in given.get("additionalColumnOptions", ())
        }
        return cls(
            given.get("separatorSequence", ","),
            given.get("quoteSequence", '"'),
            given.get("escapeSequence", given.get("quoteSequence", '"')),
            codecs.lookup(given.get("charSet", "utf-8")).name,
            NumberAndDate(
                given.get("dateFormat"),
                given.get("thousandSeparator"),
                given.get("decimalSeparator"),
            ),
            columns,
        )

    def spelling_of(self, name: str) -> NumberAndDate:
        """Return the spelling of a column: its own where given, else the file's."""
        own = self.columns.get(name.lower(), NumberAndDate())
        return NumberAndDate(
            own.date_format or self.spelling.date_format,
            own.thousand_separator or self.spelling.thousand_separator,
            own.decimal_separator or self.spelling.decimal_separator,
        )


def to_utf8(path: Path, dialect: CsvDialect) -> None:
    """Rewrite a file of another character set as UTF-8, block by block."""
    if dialect.charset == "utf-8":
        return
    rewritten = path.with_name(path.name + ".utf8")
    with (
        path.open(encoding=dialect.charset, newline="") as source,
        rewritten.open("w", encoding="utf-8", newline="") as target,
    ):
        while block := source.read(_HEADER_BYTES):
            target.write(block)
    rewritten.replace(path)


def read_header(path: Path, dialect: CsvDialect) -> list[str]:
    """Return the column names of the header line of a UTF-8 file.

    Raises:
        ValueError: there is none, or it is not text.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        start = file.read(_HEADER_BYTES)
    if not start:
        msg = "the file is empty"
        raise ValueError(msg)
    if len(dialect.separator) != 1 or len(dialect.quote) != 1:
        line = start.splitlines()[0]
        return [part.strip(dialect.quote or None) for part in line.split(dialect.separator)]
    try:
        lines = start.splitlines(keepends=True)
        return next(csv.reader(lines, delimiter=dialect.separator, quotechar=dialect.quote))
    except (csv.Error, StopIteration) as error:
        raise ValueError(str(error)) from error


def sql_source(path: Path, dialect: CsvDialect) -> str:
    """Return the SQL table function that reads the file, every column as text."""
    names = ", ".join(f"{_text(name)}: 'VARCHAR'" for name in read_header(path, dialect))
    return (
        f"read_csv({_text(glob.escape(str(path)))}, auto_detect = false, header = true, "
        f"delim = {_text(dialect.separator)}, quote = {_text(dialect.quote)}, "
        f"escape = {_text(dialect.escape)}, columns = {{{names}}}, nullstr = '', "
        "max_line_size = 16777216)"
    )


def text_value(dialect: CsvDialect, name: str, column_type: str) -> str:
    """Return the SQL that parses the text column ``name`` as a value of ``column_type``."""
    column, spelling = quoted(name), dialect.spelling_of(name)
    if column_type == "STRING":
        return column
    if column_type in ("INTEGER", "FLOAT"):
        if spelling.thousand_separator:
            column = f"replace({column}, {_text(spelling.thousand_separator)}, '')"
        if spelling.decimal_separator:
            column = f"replace({column}, {_text(spelling.decimal_separator)}, '.')"
    if column_type in ("DATE", "DATETIME", "TIME"):
        if spelling.date_format:
            pattern = _text(strptime_pattern(spelling.date_format))
            column = f"CAST(strptime({column}, {pattern}) AS TIMESTAMP)"
        elif column_type == "DATETIME":
            # Through the zoned type, so that an offset in the text is applied, not dropped.
            column = f"CAST({column} AS TIMESTAMPTZ)"
    return f"CAST({column} AS {DUCKDB_TYPES[column_type]})"


def strptime_pattern(java_pattern: str) -> str:
    """Translate a Java date pattern; letters that are not known stay as they are."""
    parts = re.findall(r"'((?:[^']|'')*)'|(([A-Za-z])\3*)|(.)", java_pattern)
    spelled = []
    for literal, letters, _, other in parts:
        if letters:
            spelled.append(_JAVA_PARTS.get(letters, letters))
        else:
            spelled.append((literal or other or "'").replace("''", "'").replace("%", "%%"))
    return "".join(spelled)


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
