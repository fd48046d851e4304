"""Values in the query of a URL.

Hides: how a parameter without a value is read. Guarantees: ``?limit=`` is as good as no ``limit``.
Must not know: routes, what a parameter says.
"""

from __future__ import annotations

from typing import Any

from pydantic import BeforeValidator


def blank_is(default: Any) -> BeforeValidator:
    """Return what reads a blank value of a parameter as its default."""
    return BeforeValidator(lambda value: default if value == "" else value)
