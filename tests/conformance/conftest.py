"""The fixtures of the program's tests, for the samples."""

from __future__ import annotations

from program.conftest import emulator, make_target, target

__all__ = ["emulator", "make_target", "target"]
