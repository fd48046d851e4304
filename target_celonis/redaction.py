"""Secrets are taken out of every text that leaves the program, however they are spelled there.

Hides how a secret may look inside an address, a header, JSON or a ``repr``, and how log lines are
formatted. Guarantees: once added, a secret of four characters or more is in no line of the
handlers that ``installed`` covers, whichever library wrote it, nor in the exception texts below a
line; a text without a secret stays as it is. Must not know: where secrets come from, or who logs.

This is the second line of defence: the first is that nobody logs a secret.
"""

from __future__ import annotations

import base64
import logging
import re
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

MASK = "***"
SHORTEST = 4
"""Characters; what is shorter is part of too many harmless words."""

_BASE64_BITS = 6
_BASE64_LETTERS = "[0-9A-Za-z+/_-]"
_ASCII = 128


class Redaction:
    """The secrets of a run, and what stands for them in texts."""

    def __init__(self) -> None:
        self._secrets: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self._is_current = True
        self._lock = threading.Lock()

    def add(self, secret: str) -> None:
        """Hide a secret from now on; may be called from any thread."""
        with self._lock:
            if len(secret) >= SHORTEST and secret not in self._secrets:
                self._secrets.add(secret)
                self._is_current = False

    def _known(self) -> re.Pattern[str] | None:
        """Return a pattern for all secrets, made when it is needed."""
        if not self._is_current:
            with self._lock:
                # The longest first: one may be part of another.
                known = sorted(self._secrets, key=len, reverse=True)
                self._pattern = re.compile("|".join(_spellings(one) for one in known))
                self._is_current = True
        return self._pattern

    def add_address(self, address: str) -> None:
        """Hide the password in an address, such as a proxy's."""
        try:
            password = urlsplit(address if "://" in address else f"//{address}").password
        except ValueError:  # no address: there is nothing that could be its password
            return
        self.add(unquote(password or ""))

    def text(self, line: str) -> str:
        """Return a text without the secrets."""
        pattern = self._known()
        return line if pattern is None else pattern.sub(MASK, line)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Have all handlers that there are now write no secret, until the end of the block."""
        before = [(handler, handler.formatter) for handler in _handlers()]
        for handler, formatter in before:
            handler.setFormatter(_Redacting(self, formatter))
        try:
            yield
        finally:
            for handler, formatter in before:
                handler.setFormatter(formatter)


SECRETS = Redaction()
"""The secrets of this process; each ``Secret`` adds itself."""


class _Redacting(logging.Formatter):
    """Takes secrets out of what another formatter makes of a record, its exception included.

    Args:
        redaction: What is to be hidden.
        inner: The other formatter; None for the usual one.
    """

    def __init__(self, redaction: Redaction, inner: logging.Formatter | None) -> None:
        super().__init__()
        self._redaction = redaction
        self._inner = inner or logging.Formatter()

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return self._redaction.text(self._inner.format(record))


def _handlers() -> list[logging.Handler]:
    """Return the handlers of all loggers, each once, and the one for where there is none."""
    loggers = [logging.getLogger(), *logging.getLogger().manager.loggerDict.values()]
    found = [h for one in loggers if isinstance(one, logging.Logger) for h in one.handlers]
    if logging.lastResort is not None:
        found.append(logging.lastResort)
    return list(dict.fromkeys(found))


def _spellings(secret: str) -> str:
    """Return a pattern for a secret, each of its letters plain or escaped, or all in Base64."""
    patterns = ["".join(_letter(letter) for letter in secret)]
    for shift in range(3):
        piece = _base64_piece(secret, shift)
        middle = "".join(_base64_letter(letter) for letter in piece)
        # The letters beside it hold bits of the secret, too.
        patterns.append(f"{_BASE64_LETTERS}{{0,3}}{middle}{_BASE64_LETTERS}{{0,3}}")
    return "|".join(patterns)


def _letter(letter: str) -> str:
    """Return a pattern for a letter in a text, an address, or JSON, once or twice escaped."""
    code = ord(letter)
    plain = re.escape(letter)
    if letter.isalnum() and code < _ASCII:
        return plain
    percent = "".join(f"%(?:25)?{byte:02x}" for byte in letter.encode("utf-8", "replace"))
    units = letter.encode("utf-16-be", "surrogatepass")
    escaped = "".join(rf"\\+u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
    # The longest first, or the end of one would be left over.
    spelled = [f"(?i:{percent})", f"(?i:{escaped})", rf"\\*{plain}"]
    if code <= 0xFF:  # noqa: PLR2004  # as repr writes it
        spelled.append(rf"(?i:\\+x{code:02x})")
    if letter == " ":
        spelled.append(r"\+")
    return f"(?:{'|'.join(spelled)})"


def _base64_piece(secret: str, shift: int) -> str:
    """Return what of a secret's Base64 does not depend on its neighbours.

    Args:
        secret: The secret.
        shift: How many bytes stand before it, beyond whole groups of three.
    """
    data = b"\0" * shift + secret.encode("utf-8", "replace")
    begin = -(-shift * 8 // _BASE64_BITS)
    end = len(data) * 8 // _BASE64_BITS
    return base64.b64encode(data).decode()[begin:end]


def _base64_letter(letter: str) -> str:
    return {"+": r"(?:[+-]|%2[Bb])", "/": r"(?:\\*/|_|%2[Ff])"}.get(letter, letter)
