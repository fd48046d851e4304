"""A short name for a list of values, to tell places and tables apart in names of files.

Guarantees: the same values have the same name in every run. Must not know: what they stand for.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


def fingerprint(values: Iterable[Any]) -> str:
    """Return 32 hexadecimal digits for JSON values."""
    return hashlib.sha256(json.dumps(list(values)).encode()).hexdigest()[:32]
