"""The publish step: data jobs and data models after a load, through the program and over HTTP."""

from __future__ import annotations

import itertools
import json
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from .harness import (
    Emulator,
    Ended,
    Target,
    eventually,
    lines,
    message,
    record,
    rows,
    schema,
    state,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

both_profiles = pytest.mark.both_profiles
_numbers = itertools.count(1)
MODELS = "/integration/api/v1/data-pools/local/data-models"
INTERNAL = "/integration/api/pools/local"


@dataclass
class Story:
    """A model of two pushed tables and one that a data job can make of them.

    Attributes:
        emulator: Where they are.
        target: The program, whose settings name the model.
        name: What all names begin with.
    """

    emulator: Emulator
    target: Target
    name: str = field(default_factory=lambda: f"p{next(_numbers)}")
    runs: int = 0

    def __post_init__(self) -> None:
        self.model(self.orders, self.items)

    @property
    def orders(self) -> str:
        return f"{self.name}_orders"

    @property
    def items(self) -> str:
        return f"{self.name}_items"

    @property
    def activities(self) -> str:
        return f"{self.name}_activities"

    def model(self, *tables: str | dict[str, str]) -> None:
        listed = [{"name": t, "id": f"id-{t}"} if isinstance(t, str) else t for t in tables]
        self.emulator.make("data-models", id=self.name, name="Order to cash", tables=listed)

    def job(self, sql: str = "", **more: Any) -> None:
        """Make the data job; without SQL, the one that makes the activities."""
        sql = sql or (
            f"CREATE OR REPLACE TABLE {self.activities} AS "
            f"SELECT id, 'created' AS activity FROM {self.orders} "
            f"UNION ALL SELECT id, 'packed' FROM {self.items}"
        )
        tasks = [{"name": "Activities", "sql": sql}]
        self.emulator.make("data-jobs", id=self.name, name="Nightly", tasks=tasks, **more)

    def settings(self, *, job: bool = False, **rule: Any) -> dict[str, Any]:
        """Return settings that publish."""
        found: dict[str, Any] = {"data_models": [{"id": self.name} | rule]}
        if job:
            found["data_jobs"] = [{"id": self.name}]
        return found

    def messages(self, orders: int = 0, items: int = 0) -> list[bytes]:
        """Return what the tap prints: so many new rows."""
        self.runs += 1
        first = self.runs * 1000
        return [
            schema(self.orders),
            schema(self.items),
            *rows(self.orders, range(first, first + orders)),
            *rows(self.items, range(first, first + items)),
            self.state(),
        ]

    def state(self) -> bytes:
        return state({"run": self.runs})

    def load(self, orders: int = 0, items: int = 0, **settings: Any) -> Ended:
        return self.target.load(*self.messages(orders, items), **settings)

    def fail(self, code: int, error: str, orders: int = 0, items: int = 0, **more: Any) -> Ended:
        """Run, expect it to fail in the publish step: the state is out all the same."""
        ended = self.target.fail(code, error, *self.messages(orders, items), **more)
        assert ended.states == [json.dumps({"run": self.runs}).encode()]
        assert self.emulator.left_behind() == []
        return ended

    # --- what Celonis shows

    def info(self) -> Any:
        path = f"{INTERNAL}/data-models/{self.name}/load-history/load-info-sync"
        self.emulator.call("GET", path)  # perhaps a stale one
        return self.emulator.call("GET", path).json()

    def loads(self) -> list[tuple[str, str]]:
        """Return type and status of all loads, oldest first."""
        history = self.info()["loadHistory"]["dataLoadHistory"]
        return [(load["loadType"], load["loadStatus"]) for load in reversed(history)]

    def shown(self) -> dict[str, int]:
        """Return the rows of the tables in the data model."""
        live = self.info()["loadInfo"]["liveDataModel"]
        return {t["tableName"]: t["tableRowCount"] for t in live["tableLoads"]}

    def executions(self) -> list[str]:
        """Return how the executions of the data job ended, oldest first."""
        answer = self.emulator.call("GET", f"{INTERNAL}/logs/{self.name}/executions")
        return [item["status"] for item in reversed(answer.json()["executionItems"])]

    def trigger(self, what: str = "load") -> None:
        """Start a load or an execution as somebody else would."""
        path = f"{MODELS}/{self.name}/load"
        if what == "job":
            path = f"/integration/api/v2/data-pools/local/data-jobs/{self.name}/execute?mode=FULL"
        assert self.emulator.call("POST", path).status_code == 200


@pytest.fixture
def story(emulator: Emulator, target: Target) -> Story:
    return Story(emulator, target)


Switched = Callable[..., Story]


@pytest.fixture
def switched(
    start: Callable[..., Emulator], make_target: Callable[..., Target]
) -> Iterator[Switched]:
    """Tell stories on emulators with switches, where every fault that is set is met."""
    emulators = []

    def made(*options: str) -> Story:
        emulators.append(start("--pool", "local=Local", *options))
        return Story(emulators[-1], make_target(**emulators[-1].settings))

    yield made
    for emulator in emulators:
        assert emulator.unmet_faults() == []


def said(ended: Ended, pattern: str) -> bool:
    return re.search(pattern, ended.err) is not None


# --- one command from rows to a model


@both_profiles
def test_from_rows_to_a_model_that_shows_them(story: Story) -> None:
    story.model(story.orders, story.items, story.activities)
    story.job()
    ended = story.load(3, 4, **story.settings(job=True))
    assert story.shown() == {story.orders: 3, story.items: 4, story.activities: 7}
    assert story.executions() == ["SUCCESS"]
    assert story.loads() == [("COMPLETE", "SUCCESS")]
    tables = ", ".join(sorted((story.orders, story.items, story.activities)))
    assert said(ended, rf"Data model Order to cash: reloaded completely \({tables}\), 14 rows, in")
    assert story.load(1, **story.settings(job=True)).states
    assert story.shown() == {story.orders: 4, story.items: 4, story.activities: 8}
    assert story.loads() == [("COMPLETE", "SUCCESS")] * 2


@both_profiles
def test_a_change_in_one_table_is_reloaded_alone(story: Story) -> None:
    publishes = story.settings()
    first = story.load(2, 2, **publishes)
    assert said(first, "complete reload, since no earlier publish is noted")
    second = story.load(0, 1, **publishes)
    assert said(second, rf"partial reload \({story.items}\), since no other table changed")
    assert said(second, rf"reloaded in part \({story.items}\), 3 rows, in")
    third = story.load(**publishes)
    assert said(third, "Nothing is to be published: no table changed")
    assert story.loads() == [("COMPLETE", "SUCCESS"), ("PARTIAL", "SUCCESS")]
    assert story.shown() == {story.orders: 2, story.items: 3}


@both_profiles
def test_nothing_changed_and_no_data_job_runs(story: Story) -> None:
    story.job()
    publishes = story.settings(job=True)
    story.load(1, 1, **publishes)
    story.load(**publishes)
    assert story.executions() == ["SUCCESS"]
    assert story.loads() == [("COMPLETE", "SUCCESS")]
    story.load(**publishes, publish_on="always")
    assert story.executions() == ["SUCCESS"] * 2
    assert story.loads() == [("COMPLETE", "SUCCESS")] * 2


def test_a_fresh_container_publishes_all(story: Story, make_target: Any) -> None:
    publishes = story.settings()
    story.load(1, 1, **publishes)
    story.target = make_target(**story.emulator.settings)  # with a spool directory of its own
    story.load(**publishes)
    assert story.loads() == [("COMPLETE", "SUCCESS")] * 2


def test_a_view_may_show_what_was_pushed(story: Story) -> None:
    view = story.activities
    story.job(f"CREATE VIEW {view} AS SELECT count(*) AS n FROM {story.orders}")
    story.load(1, 1)
    story.trigger("job")
    eventually(lambda: story.executions() == ["SUCCESS"], "the view is made")
    story.model(story.orders, story.items, view)
    publishes = story.settings()
    story.load(**publishes)
    ended = story.load(1, **publishes)
    assert said(ended, f"complete reload, since {view} is a view")


def test_a_view_may_show_what_is_not_in_the_model(story: Story) -> None:
    view = story.activities
    story.job(f"CREATE VIEW {view} AS SELECT id FROM {story.orders}")
    story.load(1, 1)
    story.trigger("job")
    eventually(lambda: story.executions() == ["SUCCESS"], "the view is made")
    story.model(view)
    publishes = story.settings()
    story.load(**publishes)
    ended = story.load(5, **publishes)
    assert said(ended, f"complete reload, since {view} is a view")
    assert story.shown() == {view: 6}


# --- other settings


def test_what_a_partial_reload_left_out_is_owed_by_other_settings(story: Story) -> None:
    publishes = story.settings()
    story.load(1, 1, **publishes)
    named = story.settings(reload="partial", tables=[story.orders])
    story.load(1, 1, **named)
    assert story.shown() == {story.orders: 2, story.items: 1}
    assert said(story.load(**named), "Nothing is to be published")
    story.load(**publishes)
    assert story.shown() == {story.orders: 2, story.items: 2}


def test_what_a_run_that_publishes_nothing_pushed_is_owed(story: Story) -> None:
    publishes = story.settings()
    story.load(1, 1, **publishes)
    story.load(0, 1)
    ended = story.load(**publishes)
    assert said(ended, rf"partial reload \({story.items}\)")
    assert story.shown() == {story.orders: 1, story.items: 2}


def test_a_data_job_that_is_taken_out_after_it_failed(story: Story) -> None:
    publishes = story.settings()
    story.load(1, 1, **publishes)
    story.job("SELECT * FROM nowhere")
    story.fail(6, "TC-REMOTE-08", 3, 3, **story.settings(job=True))
    ended = story.load(**publishes)
    assert said(ended, "complete reload, since another publish was begun")  # its SQL did something
    assert story.shown() == {story.orders: 4, story.items: 4}


def test_a_partial_reload_where_nothing_is_certain(story: Story, make_target: Any) -> None:
    publishes = story.settings(reload="partial")
    story.load(1, 1, **publishes)
    story.emulator.fault({"match": "load_model", "answer": 400})
    story.fail(6, "TC-REMOTE-02", 2, 2, **publishes)
    story.target = make_target(**story.emulator.settings)  # with a spool directory of its own
    ended = story.load(**publishes)
    assert said(ended, "complete reload, since no earlier publish is noted")
    assert story.shown() == {story.orders: 3, story.items: 3}
    ended = publish(story, **publishes)
    assert said(ended, "complete reload, since it is asked for, and none of its tables changed")


def test_tables_of_another_connection_are_others(story: Story) -> None:
    story.load(1, 0)
    story.load(1, 0, connection_id="erp")
    story.model(
        story.orders, {"name": story.orders, "connection_id": "erp", "alias": "E", "id": "e"}
    )
    publishes = story.settings() | {"connection_id": "erp"}
    story.load(**publishes)
    ended = story.load(2, 0, **publishes)
    assert said(ended, r"partial reload \(E\)")
    assert story.shown() == {story.orders: 1, "E": 3}


@both_profiles
def test_a_partial_reload_of_tables_that_are_named(story: Story) -> None:
    publishes = story.settings(reload="partial", tables=[story.orders.upper()])
    story.load(1, 1, **publishes)
    assert story.shown() == {story.orders: 1, story.items: 1}  # what had no copy got one
    story.load(1, 1, **publishes)
    assert story.shown() == {story.orders: 2, story.items: 1}
    story.load(1, 1, **story.settings(reload="complete"))
    assert story.shown() == {story.orders: 3, story.items: 3}


def test_a_table_that_the_model_has_not_is_known_early(story: Story) -> None:
    ended = story.target.fail(
        2, "TC-SETTINGS-03", **story.settings(reload="partial", tables=["nothing"])
    )
    assert story.orders in ended.last_words


@both_profiles
def test_no_table_of_the_model_changed(story: Story) -> None:
    story.load(1, 1, **story.settings())
    other = f"{story.name}_other"
    ended = story.target.load(schema(other), record(other, id=1), state({}), **story.settings())
    assert said(ended, "Data model Order to cash: not reloaded, since none of its tables changed")
    assert story.loads() == [("COMPLETE", "SUCCESS")]


def test_deleted_rows_are_a_change(story: Story) -> None:
    more = story.settings() | {"hard_delete": True}
    properties = {"id": {"type": "integer"}, "_sdc_deleted_at": {"type": ["null", "string"]}}
    described = [schema(story.orders, properties), schema(story.items, properties)]
    one = record(story.orders, id=1, _sdc_deleted_at=None)
    gone = record(story.orders, id=1, _sdc_deleted_at="2024-01-01T00:00:00Z")
    other = record(story.items, id=1, _sdc_deleted_at=None)
    story.target.load(*described, one, other, state({}), **more)
    ended = story.target.load(*described, gone, state({}), **more)
    assert said(ended, rf"reloaded in part \({story.orders}\), 0 rows")


# --- how fresh


def test_the_closing_line_says_how_fresh_the_model_is(story: Story) -> None:
    def extracted(number: int, time: str) -> bytes:
        return message("RECORD", stream=story.orders, record={"id": number}, time_extracted=time)

    described = [schema(story.orders), schema(story.items), *rows(story.items, [1])]
    ended = story.target.load(
        *described,
        extracted(1, "2024-05-31T10:00:00.5Z"),
        extracted(2, "2024-05-31T14:00:01+02:00"),
        state({"a": 1}),
        extracted(3, "2024-05-31T09:00:00Z"),
        **story.settings(),
    )
    assert said(ended, r"; fresh as of 2024-05-31T12:00:01\+00:00\.")
    ended = story.load(1, **story.settings())
    assert "fresh as of" not in ended.err


# --- what goes wrong: the state is out, nothing runs twice, and the next run publishes


@both_profiles
def test_a_data_job_fails_and_the_next_run_publishes_without_new_rows(story: Story) -> None:
    story.job("SELECT 1; SELECT * FROM nowhere")
    publishes = story.settings(job=True)
    ended = story.fail(6, "TC-REMOTE-08", 1, 1, **publishes)
    assert said(
        ended, r"Data job Nightly \(.*\) ended as FAIL. Celonis says: Activities: .*nowhere"
    )
    assert story.executions() == ["FAIL"]
    assert story.loads() == []
    story.job()
    story.model(story.orders, story.items, story.activities)
    assert story.load(**publishes).states
    assert story.executions() == ["FAIL", "SUCCESS"]
    assert story.shown() == {story.orders: 1, story.items: 1, story.activities: 2}
    assert story.target.run(lines(*story.messages()), **publishes).code == 0
    assert story.executions() == ["FAIL", "SUCCESS"]


@both_profiles
def test_a_load_fails_and_the_next_run_reloads_without_new_rows(story: Story) -> None:
    publishes = story.settings()
    story.load(1, 1, **publishes)
    story.model(story.orders, story.items, "nowhere")
    ended = story.fail(6, "TC-REMOTE-09", 1, **publishes)
    assert said(ended, "ended as ERROR. Celonis says: .*nowhere")
    story.model(story.orders, story.items)
    ended = story.load(**publishes)
    assert said(ended, "complete reload, since its last load is not a good one")
    assert [status for _, status in story.loads()] == ["SUCCESS", "ERROR", "SUCCESS"]
    assert story.shown() == {story.orders: 2, story.items: 1}
    assert [job["submits"] for job in story.emulator.history(story.orders)] == [1, 1]
    assert story.emulator.count(story.orders) == 2


def test_what_a_failed_run_pushed_is_published_by_the_next(story: Story) -> None:
    publishes = story.settings()
    story.load(1, 1, **publishes)
    story.emulator.fault({"job": {"table": story.items, "status": "ERROR"}})
    story.target.fail(6, "TC-REMOTE-04", *story.messages(1, 1), **publishes)
    assert story.loads() == [("COMPLETE", "SUCCESS")]  # nothing is published after a failure
    ended = story.load(1, **publishes)
    assert said(ended, "complete reload, since all its tables changed")
    assert story.shown() == {story.orders: 3, story.items: 1}


def info(status: str, **more: Any) -> dict[str, Any]:
    """Return an answer of load-info-sync with a load of another id."""
    current = {"dataLoadId": "other", "startDate": 1, "loadStatus": status, "message": "So it is."}
    return {"loadInfo": {"currentComputeLoad": current | more, "liveDataModel": None}}


def answers(*bodies: dict[str, Any], skip: int = 0, match: str = "load_status") -> list[Any]:
    """Return faults: answers in this order, after so many real ones."""
    return [
        {"match": match, "skip": skip + place, "answer": {"status": 200, "body": body}}
        for place, body in enumerate(bodies)
    ]


# Real answers of load-info-sync before the first after the trigger: preflight, due, choice, before.
BEFORE_TRIGGER = 4


@pytest.mark.parametrize("status", ["ERROR", "CANCELED"])
def test_a_load_that_ends_badly(switched: Switched, status: str) -> None:
    story = switched()
    story.emulator.fault(*answers(info(status), skip=BEFORE_TRIGGER))
    ended = story.fail(6, "TC-REMOTE-09", 1, 1, **story.settings())
    assert said(ended, f"ended as {status}. Celonis says: So it is.")
    assert len(story.loads()) == 1


def test_a_warning_is_good_and_said(story: Story) -> None:
    properties = {"id": {"type": "integer"}, "day": {"type": "string", "format": "date"}}
    ended = story.target.load(
        schema(story.orders, properties),
        schema(story.items),
        record(story.orders, id=1, day="1400-01-01"),
        *rows(story.items, [1]),
        state({}),
        **story.settings(),
    )
    assert "WARNING" not in ended.err
    story.job(f"UPDATE {story.orders} SET day = DATE '1066-10-14'")
    story.trigger("job")
    eventually(lambda: story.executions() == ["SUCCESS"], "the date is changed")
    ended = story.load(0, 1, **story.settings(reload="complete"))
    assert said(ended, "Data model Order to cash: Celonis says: Dates outside 1400")
    assert said(ended, "reloaded completely")


def test_a_load_in_progress_is_waited_for(switched: Switched) -> None:
    """Before the trigger come the answers to preflight, whether anything is due, and how much."""
    story = switched()
    story.load(1, 1)
    story.emulator.fault(*answers(info("RUNNING"), info("LOST_CONNECTION"), skip=3))
    ended = story.load(1, **story.settings())
    assert said(ended, r"The load of data model Order to cash \(.*\) is RUNNING already")
    assert story.loads() == [("COMPLETE", "SUCCESS")]
    assert story.shown() == {story.orders: 2, story.items: 1}


def test_a_data_job_at_work_is_waited_for(switched: Switched) -> None:
    """Before the trigger come the answers to the preflight and to what its name is."""
    story = switched()
    story.load(1, 1)
    story.job()
    story.trigger("job")
    eventually(lambda: story.executions() == ["SUCCESS"], "the data job ends")
    shown = story.emulator.call("GET", f"{INTERNAL}/jobs/{story.name}").json()
    at_work = [shown | {"status": status} for status in ("QUEUED", "RUNNING")]
    story.emulator.fault(*answers(*at_work, skip=2, match="data_job_status"))
    story.model(story.orders, story.items, story.activities)
    ended = story.load(1, **story.settings(job=True))
    assert said(ended, r"Data job Nightly \(.*\) is QUEUED already")
    assert story.executions() == ["SUCCESS"] * 2
    assert story.shown()[story.activities] == 3


def test_a_data_job_that_starts_the_load_by_itself(switched: Switched) -> None:
    """Its load may be running when ours is asked for; ours comes behind it."""
    for options in ((), ("--model-load-seconds", "0.3"), ("--second-load", "queue")):
        story = switched("--stale-load-answers", "1", *options)
        story.job(data_models=[story.name])
        story.model(story.orders, story.items, story.activities)
        story.load(1, 1, **story.settings(job=True))
        assert story.loads()[0] == ("COMPLETE", "SUCCESS")
        assert story.shown()[story.activities] == 2


def test_stale_answers_after_the_trigger(switched: Switched) -> None:
    story = switched("--stale-load-answers", "3", "--model-load-seconds", "0.2")
    story.load(1, 1, **story.settings())
    for _ in range(3):
        story.info()
    story.model(story.orders, story.items, "nowhere")
    story.fail(6, "TC-REMOTE-09", 1, **story.settings())  # not the SUCCESS before it


def test_stale_answers_of_a_data_job(switched: Switched) -> None:
    story = switched()
    story.job()
    publishes = story.settings(job=True)
    story.load(1, 1, **publishes)
    old = story.emulator.call("GET", f"{INTERNAL}/jobs/{story.name}").json()
    story.job("SELECT * FROM nowhere")
    # Preflight, the job's name, and how it stood before the trigger come first.
    story.emulator.fault(*answers(old, old, skip=3, match="data_job_status"))
    story.fail(6, "TC-REMOTE-08", 1, **publishes)
    assert story.executions() == ["SUCCESS", "FAIL"]


@pytest.mark.parametrize("what", ["load_model", "execute_data_job"])
def test_an_answer_that_is_lost_after_the_trigger(switched: Switched, what: str) -> None:
    story = switched()
    story.job()
    story.emulator.fault({"match": what, "when": "after", "cut": True})
    story.load(1, 1, **story.settings(job=True))
    assert story.executions() == ["SUCCESS"]
    assert story.loads() == [("COMPLETE", "SUCCESS")]


def test_a_hang_past_the_deadline(switched: Switched) -> None:
    story = switched("--model-load-seconds", "300")
    ended = story.fail(7, "TC-LIMIT-07", 1, 1, **story.settings(), wait_timeout_minutes=0.01)
    assert said(ended, "has not ended within 0.01 minutes")
    ended = story.fail(7, "TC-LIMIT-07", **story.settings(), wait_timeout_minutes=0.01)
    assert said(ended, "was at work already")
    assert story.loads() == [("COMPLETE", "RUNNING")]  # and no second one


def test_a_data_job_that_hangs(switched: Switched) -> None:
    story = switched("--data-job-seconds", "300")
    story.job()
    publishes = story.settings(job=True)
    story.fail(7, "TC-LIMIT-07", 1, 1, **publishes, wait_timeout_minutes=0.01)
    assert story.loads() == []
    assert len(story.executions()) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_what_runs_and_names_it(switched: Switched, number: signal.Signals) -> None:
    story = switched("--data-job-seconds", "4")
    story.job()
    running = story.target.start(**story.settings(job=True))
    running.write(*story.messages(1, 1))
    assert running.process.stdin is not None
    running.process.stdin.close()
    eventually(lambda: "executed, mode" in running.err(), "the data job is executed")
    running.signal(number)
    ended = running.wait(close=False)
    assert ended.code == 128 + number
    assert said(ended, r"Data job Nightly \(.*\) is left running; Celonis will finish it")
    assert story.loads() == []
    story.load(**story.settings(job=True))  # owed still
    assert story.executions() == ["SUCCESS", "SUCCESS"]
    assert story.loads() == [("COMPLETE", "SUCCESS")]


def test_one_model_that_fails_does_not_keep_the_others_from_it(story: Story) -> None:
    story.emulator.make(
        "data-models", id=f"{story.name}-bad", name="Bad", tables=[{"name": "nowhere"}]
    )
    publishes = {"data_models": [{"id": f"{story.name}-bad"}, {"id": story.name}]}
    ended = story.fail(6, "TC-REMOTE-09", 1, 1, **publishes)
    assert story.loads() == [("COMPLETE", "SUCCESS")]
    # It is said when it is known, since the others may take long.
    assert re.search(r"Bad .* ended as ERROR.*\n(.*\n)*.*Order to cash: a complete", ended.err)


# --- access


@pytest.fixture
def limited(tmp_path: Path, switched: Switched) -> Story:
    """Tell a story with keys that may not do everything."""
    keys = {"push": "push", "look": ["read", "push"], "edit": ["read", "push", "edit"]}
    keys["publish"] = ["read", "edit", "manage"]
    setup = tmp_path / "emulator-config.json"
    listed = [{"key": f"{name}-key", "permissions": {"*": p}} for name, p in keys.items()]
    setup.write_text(json.dumps({"keys": listed, "pools": [{"id": "local"}]}))
    story = switched("--config", str(setup))
    story.job()
    return story


@pytest.mark.parametrize(
    ("key", "job", "error", "permission"),
    [
        ("push", False, "TC-ACCESS-06", "Edit"),
        ("push", True, "TC-ACCESS-05", "view and to manage"),
        ("look", False, "TC-ACCESS-06", "Edit"),
        ("edit", True, "TC-ACCESS-05", "view and to manage"),
    ],
)
def test_a_missing_permission_is_named(
    limited: Story, key: str, job: bool, error: str, permission: str
) -> None:
    settings = limited.settings(job=job) | {"api_key": f"{key}-key"}
    messages = limited.messages(1, 1)
    ended = limited.target.fail(3, error, *messages, **settings)
    assert permission in ended.last_words
    assert "integration.data-pools" in ended.last_words
    # Who may not even look is stopped before anything is loaded.
    assert bool(ended.states) == (key != "push")
    assert limited.executions() == limited.loads() == []


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"data_jobs": [{"id": "no-such-job"}]}, "TC-ACCESS-05"),
        ({"data_models": [{"id": "no-such-model"}]}, "TC-ACCESS-06"),
    ],
)
def test_an_unknown_id_is_known_before_the_first_line(
    story: Story, settings: dict[str, Any], error: str
) -> None:
    running = story.target.start(**settings)
    ended = running.wait(close=False)
    assert ended.code == 3
    assert ended.last_words.split()[1] == f"[{error}]"
    assert "no-such-" in ended.last_words


def test_check_shows_what_would_be_published(story: Story) -> None:
    story.job()
    story.target.prints_states = False
    ended = story.target.run(b"", "--check", **story.settings(job=True))
    assert ended.code == 0
    shown = ended.out.decode()
    assert "data job: Nightly, mode DELTA, never run" in shown
    assert "data model: Order to cash, 2 tables, reload auto, never run" in shown


# --- triggered and left


@both_profiles
def test_a_reload_that_is_not_waited_for(story: Story) -> None:
    publishes = story.settings() | {"wait_for_publish": False}
    ended = story.load(1, 1, **publishes)
    assert said(ended, "reload triggered, and not waited for")
    eventually(lambda: story.loads() == [("COMPLETE", "SUCCESS")], "the load ends")
    ended = story.load(**publishes)
    assert said(ended, "Nothing is to be published")
    story.load(1, **publishes)
    eventually(lambda: story.loads()[1:] == [("PARTIAL", "SUCCESS")], "the second load ends")


def test_a_reload_that_was_left_and_still_runs(switched: Switched) -> None:
    story = switched("--model-load-seconds", "300")
    publishes = story.settings() | {"wait_for_publish": False}
    story.load(1, 1, **publishes)
    for _ in range(2):
        ended = story.load(**publishes)
        assert said(ended, "Still running, and not waited for: the load of data model")
        assert said(ended, "Nothing is to be published")
    assert story.loads() == [("COMPLETE", "RUNNING")]


def test_a_load_of_somebody_else_is_no_reason_to_publish(switched: Switched) -> None:
    """Before the answer to whether anything is due comes that to the preflight."""
    story = switched()
    story.job()
    publishes = story.settings(job=True)
    story.load(1, 1, **publishes)
    story.emulator.fault(*answers(info("RUNNING"), skip=1))
    assert said(story.load(**publishes), "Nothing is to be published")
    assert story.loads() == [("COMPLETE", "SUCCESS")]
    assert story.executions() == ["SUCCESS"]


def test_what_was_left_and_failed_is_done_again(story: Story) -> None:
    story.model(story.orders, "nowhere")
    story.load(1, **story.settings(), wait_for_publish=False)
    eventually(lambda: story.loads() == [("COMPLETE", "ERROR")], "the load ends")
    story.model(story.orders)
    ended = story.load(**story.settings())
    assert said(
        ended, "since the load of data model .*, which was not waited for, did not end well"
    )
    assert story.shown() == {story.orders: 1}


def test_a_data_job_that_is_left(switched: Switched) -> None:
    story = switched("--data-job-seconds", "3")
    story.job()
    left = {"data_jobs": [{"id": story.name}], "wait_for_publish": False}
    story.load(1, 1, **left)
    assert story.executions() in (["QUEUED"], ["RUNNING"])
    eventually(lambda: story.executions() == ["SUCCESS"], "the data job ends")
    assert said(story.load(**left), "Nothing is to be published")
    # What a data model needs is waited for.
    story.load(1, 1, **left, **story.settings())
    assert story.executions() == ["SUCCESS"] * 2


# --- the publish step alone


def publish(story: Story, *arguments: str, **settings: Any) -> Ended:
    command = story.target.command(*arguments, **settings)
    place = command.index("--config")
    config, given = command[place : place + 2], command[place + 2 :]
    story.target.prints_states = False
    return story.target.run_command([*command[:place], "publish", *config, *given])


@both_profiles
def test_the_publish_step_alone(story: Story, make_target: Any) -> None:
    story.load(1, 1)
    ended = publish(story, **story.settings())
    assert (ended.code, ended.out) == (0, b""), ended.err
    assert story.loads() == [("COMPLETE", "SUCCESS")]
    story.load(1, 0)  # by settings without a data model
    ended = publish(story, "--tables", f"{story.orders.upper()}, other", **story.settings())
    assert said(ended, rf"partial reload \({story.orders}\)")
    assert story.shown() == {story.orders: 2, story.items: 1}
    elsewhere = make_target(**story.emulator.settings)  # of which nothing is noted here
    elsewhere.load(*story.messages(1, 1))
    ended = publish(story, **story.settings())
    assert said(ended, "complete reload, since it is asked for")
    assert story.shown() == {story.orders: 3, story.items: 2}


def test_the_publish_step_after_a_failed_reload(story: Story) -> None:
    story.load(1, 1, **story.settings())
    story.emulator.fault({"match": "load_model", "answer": 400})
    story.fail(6, "TC-REMOTE-02", 0, 1, **story.settings())
    ended = publish(story, **story.settings())
    assert said(ended, "complete reload, since it is asked for")
    assert said(story.load(**story.settings()), "Nothing is to be published")


def test_a_publish_that_was_asked_for_and_failed_is_owed(story: Story) -> None:
    story.job()
    story.model(story.orders, story.items, story.activities)
    publishes = story.settings(job=True)
    story.load(1, 1, **publishes)
    story.job(f"DROP TABLE {story.activities}; SELECT * FROM nowhere")
    assert publish(story, **publishes).code == 6
    story.target.prints_states = True
    story.job()
    ended = story.load(**publishes)
    assert said(ended, "Publishing, since another publish was begun")
    assert story.executions() == ["SUCCESS", "FAIL", "SUCCESS"]
    assert said(story.load(**publishes), "Nothing is to be published")


def test_a_publish_that_is_killed_is_owed(switched: Switched) -> None:
    story = switched("--data-job-seconds", "2")
    story.job()
    publishes = story.settings(job=True)
    story.load(1, 1, **publishes)
    running = story.target.start(**publishes, publish_on="always")
    assert running.process.stdin is not None
    running.process.stdin.close()
    eventually(lambda: "executed, mode" in running.err(), "the data job is executed")
    running.process.kill()
    running.process.wait()
    story.load(**publishes)
    assert story.executions() == ["SUCCESS"] * 3
    assert story.loads() == [("COMPLETE", "SUCCESS")] * 2


def test_the_publish_step_alone_needs_no_right_to_push(limited: Story) -> None:
    limited.load(1, 1)
    key = {"api_key": "publish-key"}
    for settings in (key, key | {"auth_method": "api_key"}):
        ended = publish(limited, **limited.settings(job=True), **settings)
        assert ended.code == 0, ended.err
    ended = publish(limited, **limited.settings(), api_key="push-key")
    assert (ended.code, ended.last_words.split()[1]) == (3, "[TC-ACCESS-06]")
    ended = publish(limited, **limited.settings(), api_key="unknown")
    assert (ended.code, ended.last_words.split()[1]) == (3, "[TC-ACCESS-01]")


def test_the_publish_step_with_nothing_to_publish(story: Story) -> None:
    ended = publish(story)
    assert (ended.code, ended.last_words.split()[1]) == (2, "[TC-SETTINGS-04]")
    ended = publish(story, "--nothing", **story.settings())
    assert (ended.code, ended.last_words.split()[1]) == (2, "[TC-SETTINGS-05]")
