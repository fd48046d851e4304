"""Lines of the log that are of use the first time only.

Must not know: what they say.
"""

from __future__ import annotations

import logging

logger = logging.getLogger("target-celonis")


class SayOnce:
    """Logs a line the first time that it is said."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(self, line: str) -> None:
        """Log a line, unless it was before."""
        if line not in self._said:
            self._said.add(line)
            logger.info("%s", line)
