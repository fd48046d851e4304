"""A YAML or JSON file as a tree whose parts know their places.

Hides: the YAML reader and its traps, the checks of types, the search for the name that was meant.
Guarantees: whatever is wrong is a :class:`BadDocument` with one sentence that names the place; no
value of the file is ever repeated in it, nor a wrong name where secrets are kept; a name that is
given twice is refused; ``on``, ``off``, ``yes`` and dates are texts, as in YAML 1.2.
Must not know: what the file is about.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any, Final

import yaml

from celonis_emulator.setup import id_problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

_TAG: Final = "tag:yaml.org,2002:"
# What a scalar without quotes is, by YAML 1.2 and JSON; whatever matches nothing is text.
_PLAIN: Final = {
    "null": r"|~|null",
    "bool": r"true|false",
    "int": r"[-+]?(?:0|[1-9][0-9]*)",
    "float": r"[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?",
    "merge": r"<<",
}


class BadDocument(ValueError):  # noqa: N818
    """Something in the file is wrong; the text is one sentence for people."""


class _Loader(yaml.SafeLoader):
    """Reads YAML 1.2 scalars, and refuses names that are given twice."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - as in the class above

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Look at the names before merge keys are resolved: those may be overridden."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if key.tag not in (_TAG + "str", _TAG + "merge"):
                raise _BadKey(key.start_mark, "a name is no text; put it in quotes")
            if key.value in seen:
                raise _BadKey(key.start_mark, "a name is given twice")
            seen.add(key.value)
        return node


def _text(loader: _Loader, node: yaml.ScalarNode) -> str:
    found = str(loader.construct_scalar(node))
    # JSON writes a letter beyond 16 bits as two halves.
    return found.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


_Loader.add_constructor(_TAG + "str", _text)
for _name, _pattern in _PLAIN.items():
    # None: whatever the first letter is.
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(f"(?:{_pattern})$"), None)


class _BadKey(yaml.MarkedYAMLError):
    def __init__(self, mark: yaml.Mark, sentence: str) -> None:
        super().__init__(problem=sentence, problem_mark=mark)


def read_document(path: Path) -> Any:
    """Return the content of a file, YAML or JSON; None of an empty one.

    Raises:
        BadDocument: It cannot be read, or is neither.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadDocument(f"The file {path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise BadDocument(f"The file {path} is not UTF-8 text.") from error
    if text.lstrip().startswith(("{", "[")):
        # JSON may be indented by tabs, YAML may not; within its texts there are none.
        text = text.replace("\t", " ")
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - it is a safe one
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadDocument(_sentence(path, error)) from None


def _sentence(path: Path, error: Exception) -> str:
    """Say where the reader failed; what it says can quote the file, and so a secret."""
    said = "this is no valid YAML; put text with special letters in quotes"
    if isinstance(error, _BadKey):
        said = str(error.problem)
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return f"{path}{place}: {said}."


def nearest(name: str, names: Iterable[str]) -> str:
    """Return the end of a sentence that suggests what was meant."""
    names = list(names)
    near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; there are: {', '.join(names)}." if names else "; there are none."


class Part:
    """A mapping of the document.

    Args:
        value: What stands there.
        place: Where, as people write it; empty for the whole document.
        names: The names that may be in it.
        secret: Whether a wrong name may be a secret itself.
    """

    def __init__(
        self, value: Any, place: str, names: Sequence[str], *, secret: bool = False
    ) -> None:
        self.place = place
        if not isinstance(value, dict):
            where = f"{place}: " if place else ""
            raise BadDocument(f"{where}expected {', '.join(names)}; found {_kind(value)}.")
        for name in value:
            if name in names:
                continue
            meant = nearest(name, names)
            if secret and "did you mean" not in meant:
                raise BadDocument(f"{place}: a name in it is not known{meant}")
            raise BadDocument(f"{self.at(name)} is not known{meant}")
        # A name without a value is as good as none.
        self._values = {name: given for name, given in value.items() if given is not None}

    def at(self, name: str) -> str:
        """Return the place of a name in this part."""
        shown = name if re.fullmatch(r"[\w-]+", name) else f'"{name}"'
        return f"{self.place}.{shown}" if self.place else shown

    def __contains__(self, name: str) -> bool:
        """Say whether there is a value of this name."""
        return name in self._values

    def wrong(self, name: str, sentence: str) -> BadDocument:
        """Return the fault that the value of a name has."""
        return BadDocument(f"{self.at(name)}: {sentence}")

    def any(self, name: str) -> Any:
        """Return a value as it is, None where there is none."""
        return self._values.get(name)

    def _required(self, name: str) -> Any:
        if name not in self._values:
            raise BadDocument(f"{self.at(name)} is missing.")
        return self._values[name]

    def text(self, name: str) -> str:
        """Return a text that must be there and is not blank."""
        return as_text(self._required(name), self.at(name))

    def text_or(self, name: str, default: str) -> str:
        """Return a text, or the default."""
        return self.text(name) if name in self else default

    def maybe(self, name: str) -> str | None:
        """Return a text, or None."""
        return self.text(name) if name in self else None

    def identity(self, name: str) -> str:
        """Return an id that must be there, one that can be a part of a path."""
        found = self.text(name)
        problem = id_problem(found)
        if problem:
            raise self.wrong(name, problem)
        return found

    def choice(self, name: str, choices: Sequence[str], default: str) -> str:
        """Return one of some words, or the default."""
        if name not in self:
            return default
        found = self.text(name)
        if found not in choices:
            raise self.wrong(name, f"expected one of {', '.join(choices)}.")
        return found

    def whole_number(self, name: str, largest: int) -> int | None:
        """Return a number from 0 on, or None."""
        found = self._values.get(name)
        if found is None:
            return None
        if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found <= largest:
            raise self.wrong(name, f"expected a whole number from 0 to {largest}.")
        return found

    def texts(self, name: str) -> list[str]:
        """Return a list of texts, empty where there is none."""
        return [as_text(one, place) for one, place in self._items(name)]

    def parts(
        self, name: str, names: Sequence[str], *, short: str | None = None, secret: bool = False
    ) -> list[Part]:
        """Return a list of mappings; a text alone stands for the value of the name ``short``."""
        listed = []
        for one, place in self._items(name):
            spelled = {short: one} if short is not None and isinstance(one, str) else one
            listed.append(Part(spelled, place, names, secret=secret))
        return listed

    def _items(self, name: str) -> list[tuple[Any, str]]:
        found = self._values.get(name, [])
        if not isinstance(found, list):
            raise self.wrong(name, f"expected a list, found {_kind(found)}.")
        return [(one, f"{self.at(name)}[{i}]") for i, one in enumerate(found)]

    def entries(self, name: str) -> Mapping[str, Any]:
        """Return a mapping whose names are the file's own, empty where there is none."""
        found = self._values.get(name, {})
        if not isinstance(found, dict):
            raise self.wrong(name, f"expected a mapping, found {_kind(found)}.")
        return found


def as_text(value: Any, place: str) -> str:
    """Return a value that must be a text and not blank.

    Raises:
        BadDocument: It is none.
    """
    if not isinstance(value, str):
        hint = "; put it in quotes" if isinstance(value, int | float) else ""
        raise BadDocument(f"{place}: expected text, found {_kind(value)}{hint}.")
    if not value.strip() or "\0" in value:
        raise BadDocument(f"{place}: expected text, found a blank or a NUL character.")
    return value


def _kind(value: Any) -> str:
    for kinds, said in (
        (bool, "true or false"),
        (int | float, "a number"),
        (str, "text"),
        (list, "a list"),
        (dict, "a mapping"),
    ):
        if isinstance(value, kinds):
            return said
    return "nothing"
