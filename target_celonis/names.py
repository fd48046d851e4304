"""Names that Celonis takes: of tables, and of the columns of a table.

Hides which characters, lengths and collisions Celonis has trouble with. Guarantees: pure; the same
names in give the same names out on every run, whatever their order; the columns of a table differ
by more than case. Must not know: schemas, records.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from target_celonis import limits
from target_celonis.errors import ContractError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_ILLEGAL = re.compile(r"[^\w-]", re.UNICODE)


def legal_name(name: str) -> str:
    """Return a table or column name that Celonis takes everywhere.

    Letters and digits of any script, ``_`` and ``-`` stay; all else becomes ``_``. A name of
    more than 128 UTF-8 bytes is cut and gets a suffix made from the whole of it.
    """
    legal = _ILLEGAL.sub("_", name) or "_"
    if len(legal.encode(errors="replace")) <= limits.IDENTIFIER_BYTES:
        return legal
    return _with_suffix(legal, name)


def _with_suffix(legal: str, original: str, digits: int = 4) -> str:
    """Cut ``legal`` so that ``_`` and hex digits of the original's SHA-1 fit behind it."""
    digest = hashlib.sha1(original.encode(errors="surrogatepass"), usedforsecurity=False)
    suffix = "_" + digest.hexdigest()[:digits]
    room = limits.IDENTIFIER_BYTES - len(suffix)
    return legal.encode(errors="replace")[:room].decode(errors="ignore") + suffix


def column_names(
    properties: Iterable[str], given: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Give every property a legal name that is unique without regard to case.

    Where names collide, the property whose name is legal already (the first by bytes) keeps it;
    the others get a suffix made from their own name, so that no order of properties matters.

    Args:
        properties: Names of properties.
        given: Names that the user chose, by property; they go before all others.

    Returns:
        Column name by property name.

    Raises:
        ContractError: The user chose one name twice, or one that belongs to Celonis.
    """
    ordered = sorted(properties, key=lambda name: name.encode(errors="surrogatepass"))
    ordered.sort(key=lambda name: legal_name(name) != name)  # stable: the legal ones come first
    taken = {limits.RESERVED_COLUMN.casefold()}
    names: dict[str, str] = {}
    for property_name, wanted in (given or {}).items():
        name = legal_name(wanted)
        if name.casefold() in taken:
            raise ContractError(
                "TC-CONTRACT-10",
                f"The column name `{name}`, chosen for property `{property_name}`, is taken.",
                "Choose another `name` for it in the `columns` of `streams`.",
            )
        taken.add(name.casefold())
        names[property_name] = name
    for property_name in ordered:
        name = legal_name(property_name)
        if property_name not in names and name.casefold() not in taken:
            taken.add(name.casefold())
            names[property_name] = name
    for property_name in ordered:
        if property_name not in names:
            names[property_name] = _free_name(property_name, taken)
    return names


def _free_name(property_name: str, taken: set[str]) -> str:
    """Return a legal name with as many digits as it takes to be free, and take it."""
    digits = 4
    while True:
        name = _with_suffix(legal_name(property_name), property_name, digits)
        if name.casefold() not in taken:
            taken.add(name.casefold())
            return name
        digits += 4
