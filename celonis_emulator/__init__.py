"""A local Celonis for the load side: HTTP on loopback, DuckDB underneath.

It speaks the part of Celonis that a loader needs (Data Push, pools, connections, table and
column listings) closely enough that a client cannot tell the difference, and keeps what
arrived in one DuckDB file that can be queried. Start it with ``celonis-emulator serve``.

Answers that rest on inference rather than on published facts are listed in
:mod:`celonis_emulator.assumed`.
"""

from __future__ import annotations

__all__: list[str] = []
