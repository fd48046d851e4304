"""The kinds of columns: what a value is taken for, from the schema to the table.

Hides nothing; a leaf, so that settings can name a kind without knowing tables. Must not know:
Arrow, Celonis, JSON schemas.
"""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """What a column holds; decides its Arrow and its Celonis type."""

    INTEGER = "integer"
    FLOAT = "number"
    BOOLEAN = "boolean"
    TEXT = "string"
    DATETIME = "date-time"
    DATE = "date"
    JSON = "json"
