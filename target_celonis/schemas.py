"""What a JSON schema says of a property: which kind of column holds its values.

Hides the drafts and dialects of taps: type lists, ``anyOf``, ``oneOf``, ``allOf``, ``$ref``
(recursive ones too), ``enum``, ``const``, missing types, formats of the Singer SDK. Guarantees:
pure, and an answer for every schema, however odd. Must not know: names, tables, values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from target_celonis import limits
from target_celonis.kinds import Kind


def column_kind(subschema: Any, root: Mapping[str, Any]) -> tuple[Kind, int | None]:
    """Return the kind of column for a property, and its ``maxLength`` when it is one to go by.

    Args:
        subschema: The property's schema.
        root: The schema of the stream, in which references are looked up.
    """
    facts = _Facts.of(subschema, root)
    return facts.kind(), facts.max_length


@dataclass
class _Facts:
    """What a JSON schema says of the values it allows, alternatives taken together."""

    types: set[str]
    formats: set[str | None]
    max_length: int | None = None
    references: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, subschema: Any, root: Mapping[str, Any]) -> _Facts:  # any JSON
        facts = cls(set(), set())
        facts._read(subschema, root, frozenset())
        return facts

    def _read(
        self,
        subschema: Any,
        root: Mapping[str, Any],
        seen: frozenset[str],
        outer_format: str | None = None,
    ) -> None:
        if not isinstance(subschema, Mapping):
            self.types.add("any")
            return
        reference = subschema.get("$ref")
        if isinstance(reference, str):
            self._read_reference(reference, root, seen, outer_format)
            return
        types = _declared_types(subschema)
        self.types |= types
        parts = _list(subschema.get("allOf"))
        own_format = _format(subschema)
        if own_format is None:  # what one part says of texts holds for those of the others
            own_format = next((f for f in map(_format, parts) if f is not None), None)
        if "string" in types:
            self.formats.add(own_format or outer_format)
            self._measure(subschema.get("maxLength"))
        found = bool(types)
        for part in filter(_is_typing, parts):
            found = True
            self._read(part, root, seen, own_format or outer_format)
        alternatives = [*_list(subschema.get("anyOf")), *_list(subschema.get("oneOf"))]
        for alternative in alternatives:
            # One that names no type allows any, unless the types were named around it.
            if _is_typing(alternative) or not found:
                self._read(alternative, root, seen)
        if not found and not alternatives:
            self._read_values(subschema)

    def _read_reference(
        self,
        reference: str,
        root: Mapping[str, Any],
        seen: frozenset[str],
        outer_format: str | None,
    ) -> None:
        """Read what a reference points to; one that comes back to itself may be anything."""
        target = None if reference in seen else _resolve(reference, root)
        if target is None:
            self.types.add("any")
        elif reference not in self.references:  # a second visit adds nothing
            self.references.add(reference)
            self._read(target, root, seen | {reference}, outer_format)

    def _read_values(self, subschema: Mapping[str, Any]) -> None:
        """Take the types of the values that are listed; without any, every type."""
        values = [*_list(subschema.get("enum"))]
        values += [subschema["const"]] if "const" in subschema else []
        self.types |= {_json_type(value) for value in values} or {"any"}
        self.formats.add(None)

    def _measure(self, max_length: Any) -> None:  # any JSON
        if isinstance(max_length, int) and 0 < max_length <= limits.LONGEST_STRING:
            self.max_length = max(max_length, self.max_length or 0)

    def kind(self) -> Kind:
        types = frozenset(self.types - {"null"})
        if types in _PLAIN_KINDS:
            return _PLAIN_KINDS[types]
        if types == {"string"} and len(self.formats) == 1:
            return _FORMATS.get(next(iter(self.formats)) or "", Kind.TEXT)
        # A text stays a text beside other plain values; only with objects it is JSON throughout.
        if "string" in types and types <= {"string", "integer", "number", "boolean"}:
            return Kind.TEXT
        return Kind.JSON


_PLAIN_KINDS = {
    frozenset({"integer"}): Kind.INTEGER,
    frozenset({"number"}): Kind.FLOAT,
    frozenset({"integer", "number"}): Kind.FLOAT,
    frozenset({"boolean"}): Kind.BOOLEAN,
}


_FORMATS = {
    "date-time": Kind.DATETIME,
    "date": Kind.DATE,
    # How the Singer SDK's and PipelineWise's taps say that a text spells an exact decimal number.
    "x-singer.decimal": Kind.FLOAT,
    "singer.decimal": Kind.FLOAT,
}
_OF_TEXTS = frozenset({"format", "maxLength", "minLength", "pattern", "contentEncoding"})
"""Keywords that apply to texts only: a schema without a type that has one means a text."""

_TYPING = frozenset({"type", "$ref", "anyOf", "oneOf", "allOf", "enum", "const"})
"""Keywords that say which types a schema allows."""


def _is_typing(subschema: Any) -> bool:
    return isinstance(subschema, Mapping) and bool(_TYPING & set(subschema))


def _format(subschema: Any) -> str | None:
    form = subschema.get("format") if isinstance(subschema, Mapping) else None
    return form if isinstance(form, str) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _declared_types(subschema: Mapping[str, Any]) -> set[str]:
    """Return the names in ``type``; what is no name stands for any type."""
    declared = subschema.get("type")
    if declared is None and _OF_TEXTS & set(subschema) and not _TYPING & set(subschema):
        declared = "string"
    names = declared if isinstance(declared, list) else [] if declared is None else [declared]
    return {name if isinstance(name, str) else "any" for name in names}


def _resolve(reference: str, root: Mapping[str, Any]) -> Any:  # any JSON
    """Return what a local reference (``#/definitions/x``) points to, None when nothing."""
    if not reference.startswith("#"):
        return None
    node: Any = root
    for part in reference[1:].split("/"):
        if not part:
            continue
        name = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(node, Mapping) or name not in node:
            return None
        node = node[name]
    return node


def _json_type(value: Any) -> str:  # any JSON
    names = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
    return names.get(type(value), "any")
