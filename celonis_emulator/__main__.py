"""``python -m celonis_emulator``: the same program as ``celonis-emulator``."""

from __future__ import annotations

import sys

from celonis_emulator.cli import main

if __name__ == "__main__":
    sys.exit(main())
