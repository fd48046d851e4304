"""Three hundred streams under the submits of an hour that other clients take half of."""

from __future__ import annotations

import json
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from target_celonis.auth import KeyAuth
from target_celonis.budget import SubmitBudget
from target_celonis.celonis import Celonis
from target_celonis.clock import FakeClock
from target_celonis.config import Secret
from target_celonis.http import Http
from target_celonis.jobs import PushJobs
from target_celonis.loader import Loader
from target_celonis.messages import RecordRun, SchemaMessage, StateMessage
from target_celonis.push import DataPush
from target_celonis.pusher import Pusher
from target_celonis.run_directory import RunDirectory
from target_celonis.submits import Submits
from target_celonis.table_notes import TableNotes
from target_celonis.waits import Waiter, Waits

from .conftest import KEY, POOL
from .server import Reply, WireServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from target_celonis.config import Config

HOUR_SECONDS = 3600
LEFT_BY_OTHERS = 125
STREAMS = 300
SCHEMA = {"properties": {"id": {"type": "integer"}}}


class BusyTeam(WireServer):
    """A Celonis of whose 250 submits an hour other clients take half."""

    def __init__(self, clock: FakeClock, *, tells: bool) -> None:
        super().__init__()
        self.accepted: Counter[int] = Counter()
        self.refused: Counter[int] = Counter()
        self._clock = clock
        self._tells = tells
        self._counting = threading.Lock()

    def reply_to(self, kind: str, method: str, target: str, headers: dict[str, str]) -> Reply:
        if kind != "execute":
            return super().reply_to(kind, method, target, headers)
        now = self._clock.now()
        hour = int(now // HOUR_SECONDS)
        with self._counting:
            if self.accepted[hour] < LEFT_BY_OTHERS:
                self.accepted[hour] += 1
                return Reply(200)
            self.refused[hour] += 1
        told = (("x-ratelimit-reset", str(int(HOUR_SECONDS - now % HOUR_SECONDS) + 1)),)
        return Reply(429, headers=told if self._tells else ())


class Run:
    """A run from loader to wire, on a fake clock."""

    def __init__(
        self, wire: WireServer, http: Http, clock: FakeClock, config: Config, directory: Path
    ) -> None:
        celonis = Celonis(http, POOL, None, "/data-ingestion")
        self.clock = clock
        self.states: list[bytes] = []
        self.directory = RunDirectory(directory, clock, (wire.url, POOL, ""))
        budget = SubmitBudget(directory, "team", config.submits_per_hour, clock)
        waiter = Waiter(clock, Waits())
        journal = self.directory.journal
        submits = Submits(celonis, config, journal, budget, waiter)
        jobs = PushJobs(celonis, config, journal, submits=submits, waiter=waiter)
        route = DataPush(celonis, config, jobs, budget, TableNotes(directory, (POOL,)))
        self.pusher = Pusher(route, 4)
        self.loader = Loader(config, self.directory, self.pusher, clock, self.states.append)
        self.line = 0

    def next_line(self) -> int:
        self.line += 1
        return self.line

    def read(self, minute: int) -> None:
        """Read a record of every stream, and a state behind them."""
        for number in range(STREAMS):
            records = [json.dumps({"id": minute}).encode()]
            self.loader.records(RecordRun(f"s{number}", None, records, [self.next_line()]))
        state = json.dumps({"minute": minute}).encode()
        self.loader.state(
            StateMessage(self.next_line(), state, names_syncing=False, currently_syncing=None)
        )


@pytest.mark.parametrize("tells", [False, True])
def test_three_hundred_streams_finish_by_plan(
    tells: bool,
    config: Callable[..., Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "target-celonis")
    clock = FakeClock(seconds=HOUR_SECONDS * 480_000.0)
    minutes = 150
    with (
        BusyTeam(clock, tells=tells) as wire,
        Http(wire.url, clock, 8) as http,
    ):
        http.authorize(KeyAuth("app_key", Secret(KEY), wire.url))
        settings = config(base_url=wire.url, checkpoint_interval_minutes=5)
        run = Run(wire, http, clock, settings, tmp_path)
        for number in range(STREAMS):
            name = f"s{number}"
            run.loader.schema(SchemaMessage(run.next_line(), name, SCHEMA, ("id",), name))
        for minute in range(minutes):
            run.read(minute)
            clock.sleep(60)
            run.loader.tick()
            run.pusher.wait(0.02)  # so that pushes come along, as they do in a real minute
        run.loader.finish()
        run.pusher.close()
        reports = run.loader.reports()
        run.directory.close()
    assert [report.loaded + report.merged for report in reports] == [minutes] * STREAMS
    assert run.states[-1] == json.dumps({"minute": minutes - 1}).encode()
    # Each checkpoint is one submit for each stream, and no more of them are begun than can be made.
    accepted = sum(wire.accepted.values())
    assert accepted % STREAMS == 0
    assert accepted <= STREAMS * (2 + minutes * LEFT_BY_OTHERS // (60 * STREAMS))
    assert accepted >= 2 * STREAMS  # one while reading went on, and the end
    # An hour that is used up is asked at most so often whether it is.
    assert max(wire.refused.values(), default=0) <= (1 if tells else 4)
    assert "300 push jobs are due; by the submits of an hour that takes" in caplog.text
    assert "lie further apart than" in caplog.text
