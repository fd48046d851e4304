"""Objects that stand in lists of settings: which keys they may have, and what the values become.

Hides how a key is checked and how the nearest known one is found. Guarantees: what leaves here is
checked; every fault is one ``SettingsError`` that names its place. Must not know: what the objects
are for.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from target_celonis.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@dataclass(frozen=True)
class Key:
    """A key of an object: what values it may have, and what they become."""

    wanted: str
    fits: Callable[[Any], bool]
    becomes: Callable[[Any], Any] = lambda value: value


def one_of(options: Sequence[str]) -> str:
    """Return what is wanted of a key that has a few values only."""
    return "one of " + ", ".join(f"`{option}`" for option in options)


FLAG = Key("true or false", lambda value: isinstance(value, bool))
TEXT = Key("a text", lambda value: isinstance(value, str) and bool(value.strip()))
NAMES = Key(
    "a list of names",
    lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
    tuple,
)


def checked(values: Mapping[str, Any], keys: Mapping[str, Key], where: str) -> dict[str, Any]:
    """Return an object's values by key, those that are null left out.

    Args:
        values: The object.
        keys: Those that it may have.
        where: What an error calls it.

    Raises:
        SettingsError: A key is unknown, or a value does not fit.
    """
    taken = {}
    for name, value in values.items():
        if name not in keys:
            near = difflib.get_close_matches(name, keys, n=1)
            hint = f"Did you mean `{near[0]}`?" if near else ""
            raise SettingsError("TC-SETTINGS-02", f"{where} holds the unknown key `{name}`.", hint)
        if value is None:
            continue
        key = keys[name]
        if not key.fits(value):
            raise SettingsError("TC-SETTINGS-03", f"`{name}` in {where} must be {key.wanted}.")
        taken[name] = key.becomes(value)
    return taken
