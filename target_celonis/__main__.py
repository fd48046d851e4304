"""``python -m target_celonis``, and the console script."""

from __future__ import annotations

import sys

from target_celonis.target import main as run


def main() -> None:
    """Run the program and exit with its code."""
    sys.exit(run())


if __name__ == "__main__":
    main()
