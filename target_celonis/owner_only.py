"""Files that none but their owner may read, whatever the umask says.

Must not know: what is in them.
"""

from __future__ import annotations

import os


def owner_only(path: str, flags: int) -> int:
    """Open a file with mode 0600; an ``opener`` for ``open``."""
    return os.open(path, flags, 0o600)
