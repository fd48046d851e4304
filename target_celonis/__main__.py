"""``python -m target_celonis``, and the console script."""

from __future__ import annotations

import gc
import sys

_COLLECT_AFTER = 50_000
"""Objects made before garbage is looked for: a block of records makes thousands, none in cycles."""


def main() -> None:
    """Run the program and exit with its code."""
    gc.disable()  # what is imported stays; to look for garbage in it is a tenth of the start
    from target_celonis.target import main as run

    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)
    gc.enable()
    sys.exit(run())


if __name__ == "__main__":
    main()
