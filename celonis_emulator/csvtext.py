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
# Each letter with what its runs of 1, 2, 3 ... mean; DuckDB reads numbers with or without zeros
# before them, and fractions of any length up to the one named.
_JAVA_LETTERS: Final = {
    "y": ("%Y", "%y", None, "%Y"),
    "u": ("%Y", "%y", None, "%Y"),
    "M": ("%m", "%m", "%b", "%B"),
    "L": ("%m", "%m", "%b", "%B"),
    "d": ("%d", "%d"),
    "D": ("%j", "%j", "%j"),
    "E": ("%a", "%a", "%a", "%A"),
    "H": ("%H", "%H"),
    "h": ("%I", "%I"),
    "m": ("%M", "%M"),
    "s": ("%S", "%S"),
    "S": (*["%g"] * 3, *["%f"] * 3, *["%n"] * 3),
    "a": ("%p",),
    "X": ("%z", "%z", "%z"),
    "x": ("%z", "%z", "%z"),
    "Z": ("%z", "%z", "%z"),
}
_JAVA_SPECIAL: Final = "'[]{}#"


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
        "max_line_size = 16777216, hive_partitioning = false)"
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
            spelled = _with_offset(column, spelling.date_format)
            column = f"CAST(strptime({spelled}, {pattern}) AS TIMESTAMP)"
        elif column_type == "DATETIME":
            # Through the zoned type, so that an offset in the text is applied, not dropped.
            column = f"CAST({column} AS TIMESTAMPTZ)"
    return f"CAST({column} AS {DUCKDB_TYPES[column_type]})"


def date_format_problem(java_pattern: str) -> str | None:
    """Say what of a Java date pattern is not understood, if anything."""
    try:
        strptime_pattern(java_pattern)
    except ValueError as error:
        return str(error)
    return None


def strptime_pattern(java_pattern: str) -> str:
    """Translate a Java date pattern.

    Raises:
        ValueError: It holds letters or signs that are not understood; the text is one sentence.
    """
    spelled = []
    for literal, letters, letter, other in _java_parts(java_pattern):
        if letters:
            meanings = _JAVA_LETTERS.get(letter, ())
            meaning = meanings[len(letters) - 1] if len(letters) <= len(meanings) else None
            if meaning is None:
                msg = f"{letters} in a date format is not understood; put plain text in quotes."
                raise ValueError(msg)
            spelled.append(meaning)
        elif other and other in _JAVA_SPECIAL:
            msg = f"{other} in a date format is not understood; double a quote that is meant."
            raise ValueError(msg)
        else:
            spelled.append((literal or other or "'").replace("''", "'").replace("%", "%%"))
    return "".join(spelled)


def _java_parts(java_pattern: str) -> list[tuple[str, str, str, str]]:
    """Return quoted text, runs of a letter with that letter, and other signs, one of them each."""
    found = re.findall(r"'((?:[^']|'')*)'|(([A-Za-z])\3*)|(.)", java_pattern, flags=re.DOTALL)
    return [tuple(part) for part in found]


def _with_offset(column: str, java_pattern: str) -> str:
    """Return SQL that spells UTC, which is Z for Java's X, as an offset that DuckDB can read."""
    if not any(letter == "X" for _, _, letter, _ in _java_parts(java_pattern)):
        return column
    return f"regexp_replace({column}, '([0-9 ])Z($|[^A-Za-z])', '\\1+00:00\\2')"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
