"""A local Celonis for the load side: HTTP on loopback, DuckDB underneath.

It speaks the part of Celonis that a pipeline needs: Data Push, pools and connections, table and
column listings, data models and their loads, data jobs, keys, permissions and OAuth. What arrived
is kept in one DuckDB file that can be queried. Start it with ``celonis-emulator serve``, or ask for
it in a test: :mod:`celonis_emulator.testing` has fixtures for pytest.

Answers that rest on inference rather than on published facts are listed in
:mod:`celonis_emulator.assumed`, choices in :mod:`celonis_emulator.switches`, what can be made to
go wrong in :mod:`celonis_emulator.faults`.
"""

from __future__ import annotations

__all__: list[str] = []
