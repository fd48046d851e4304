"""Singer target that lands record streams in a Celonis data pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from target_celonis.target import TargetCelonis

__all__ = ["TargetCelonis"]


def __getattr__(name: str) -> object:
    """Import the target when it is first asked for: the SDK behind it takes a second."""
    if name == "TargetCelonis":
        from target_celonis.target import TargetCelonis

        return TargetCelonis
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
