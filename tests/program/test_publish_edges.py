"""The publish step at its edges: pushes that still run, outages, signals, kills, how fresh."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from .harness import Running, eventually, message, rows, schema, state
from .test_publish import (
    INTERNAL,
    Story,
    Switched,
    answers,
    limited,
    publish,
    said,
    story,
    switched,
)

__all__ = ["limited", "story", "switched"]

SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "report.schema.json"


def begin(story: Story, orders: int, items: int = 0, /, **settings: Any) -> Running:
    """Start a run that has all of its input."""
    running = story.target.start(**settings)
    running.write(*story.messages(orders, items))
    assert running.process.stdin is not None
    running.process.stdin.close()
    return running


def kill(running: Running) -> None:
    running.process.kill()
    running.process.wait()


# --- pushes that still run


def begin_and_kill(story: Story) -> Running:
    """Kill a run while its push is RUNNING."""
    dying = begin(story, 4, **story.settings())
    eventually(
        lambda: "RUNNING" in [job["status"] for job in story.emulator.history(story.orders)],
        "the push runs",
    )
    kill(dying)
    return dying


@pytest.fixture
def left_push(switched: Switched, monkeypatch: pytest.MonkeyPatch) -> Story:
    """Tell of a run that was killed while its push of four orders was RUNNING."""
    story = switched("--running-seconds", "6")
    story.load(1, 1, **story.settings())
    begin_and_kill(story)
    monkeypatch.setattr(story.target, "look_at", lambda _: None)  # the journal stays for a load
    return story


def test_a_push_that_a_dead_run_left_ends_before_the_publish_step(left_push: Story) -> None:
    story = left_push
    ended = publish(story, **story.settings())
    assert ended.code == 0, ended.err
    assert story.shown()[story.orders] == 5


def test_a_push_that_a_dead_run_left_ends_before_a_run_publishes(left_push: Story) -> None:
    story = left_push
    ended = story.target.run(state({}) + b"\n", **story.settings())
    assert ended.code == 0, ended.err
    assert story.shown()[story.orders] == 5
    ended = story.target.run(state({}) + b"\n", **story.settings())
    assert said(ended, "Nothing is to be published")


def test_a_push_that_does_not_end_in_time(
    switched: Switched, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = switched("--running-seconds", "300")
    story.model(story.orders)
    dying = begin_and_kill(story)
    monkeypatch.setattr(story.target, "look_at", lambda _: None)  # the journal stays for a load
    ended = publish(story, **story.settings(), wait_timeout_minutes=0.01)
    assert ended.code == 7
    assert said(ended, r"\[TC-LIMIT-01\] Push job \S+ on table .* so that nothing is published")
    assert story.loads() == []
    assert dying.process.returncode == -signal.SIGKILL


def test_a_push_on_a_table_that_nobody_waits_for(switched: Switched) -> None:
    story = switched()
    other = f"{story.name}_other"
    pushes = "/integration/api/v1/data-push/local/jobs/"
    body = {"targetName": other, "dataPoolId": "local", "type": "DELTA", "fileType": "CSV"}
    made = story.emulator.call("POST", pushes, json=body)
    assert made.status_code == 200, made.text
    ended = story.load(1, 1, **story.settings())  # a NEW job, and one on another table
    assert "is to end before anything is published" not in ended.err
    story.emulator.call("DELETE", pushes + made.json()["id"])


def test_who_may_not_list_push_jobs_clears_nothing(limited: Story) -> None:
    story = limited
    settings = story.settings() | {"api_key": "look-key"}
    story.target.fail(3, "TC-ACCESS-06", *story.messages(1, 1), **settings)
    settings = story.settings() | {"api_key": "publish-key"}
    ended = publish(story, **settings)
    assert ended.code == 0, ended.err
    assert said(ended, "may not list push jobs, .* what was owed stays owed to the next run")
    assert story.loads() == [("COMPLETE", "SUCCESS")]
    story.target.prints_states = True
    ended = story.load(**story.settings())
    assert not said(ended, "may not list")
    assert len(story.loads()) == 2
    assert said(story.load(**story.settings()), "Nothing is to be published")


# --- runs side by side


def test_two_runs_take_turns(switched: Switched, monkeypatch: pytest.MonkeyPatch) -> None:
    story = switched("--model-load-seconds", "4")
    monkeypatch.setattr(story.target, "look_at", lambda _: None)  # each finds the other's files
    second = story.target.start(**story.settings(), publish_on="always")
    second.write(state({"second": True}))
    first = begin(story, 1, 1, **story.settings())
    eventually(lambda: "complete reload" in first.err(), "the first one reloads")
    assert second.process.stdin is not None
    second.process.stdin.close()
    eventually(lambda: "Another run on this machine publishes" in second.err(), "it waits")
    assert first.wait(close=False).code == 0
    ended = second.wait(close=False)
    assert ended.code == 0, ended.err
    assert "was at work already" not in ended.err
    assert [status for _, status in story.loads()] == ["SUCCESS"] * 2


def test_a_turn_that_does_not_come(switched: Switched, monkeypatch: pytest.MonkeyPatch) -> None:
    story = switched("--model-load-seconds", "300")
    monkeypatch.setattr(story.target, "look_at", lambda _: None)  # the first one still runs
    first = begin(story, 1, 1, **story.settings())
    eventually(lambda: "complete reload" in first.err(), "the first one reloads")
    ended = story.target.fail(
        7, "TC-LIMIT-07", state({}), **story.settings(), wait_timeout_minutes=0.01
    )
    assert said(ended, "Another run on this machine publishes and has not ended within 0.01 min")
    second = story.target.start(**story.settings())
    second.write(state({}))
    assert second.process.stdin is not None
    second.process.stdin.close()
    eventually(lambda: "Another run on this machine publishes" in second.err(), "it waits")
    second.signal(signal.SIGTERM)
    assert second.wait(close=False).code == 128 + signal.SIGTERM
    kill(first)


# --- outages


def test_an_outage_while_a_load_is_waited_for(switched: Switched) -> None:
    story = switched("--model-load-seconds", "2")
    # More than the tries of one request.
    story.emulator.fault(
        *[{"match": "load_status", "skip": 4 + n, "answer": 503} for n in range(7)]
    )
    ended = story.load(1, 1, **story.settings())
    assert said(ended, "The load of data model .* cannot be looked at just now")
    assert story.loads() == [("COMPLETE", "SUCCESS")]


# --- how data jobs end


@pytest.mark.parametrize("status", ["CANCEL", "SKIPPED"])
def test_a_data_job_that_ends_otherwise(switched: Switched, status: str) -> None:
    story = switched()
    story.job()
    publishes = story.settings(job=True)
    story.load(1, 1, **publishes)
    shown = story.emulator.call("GET", f"{INTERNAL}/jobs/{story.name}").json()
    shown |= {"status": status, "currentExecutionId": "e", "latestExecutionItemId": "i"}
    # Preflight, the job's name, and how it stood before the trigger come first.
    story.emulator.fault(*answers(shown, skip=3, match="data_job_status"))
    ended = story.fail(6, "TC-REMOTE-08", 1, **publishes)
    assert said(ended, rf"Data job Nightly \(.*\) ended as {status}\.")
    assert story.loads() == [("COMPLETE", "SUCCESS")]
    story.load(**publishes)  # owed still
    assert story.loads() == [("COMPLETE", "SUCCESS")] * 2


# --- signals and kills


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_a_model_is_loaded(switched: Switched, number: signal.Signals) -> None:
    story = switched("--model-load-seconds", "3")
    running = begin(story, 1, 1, **story.settings())
    eventually(lambda: story.loads() == [("COMPLETE", "RUNNING")], "the load runs")
    running.signal(number)
    ended = running.wait(close=False)
    assert ended.code == 128 + number
    assert ended.states == [json.dumps({"run": story.runs}).encode()]
    assert said(ended, r"The load of data model .* is left running; Celonis will finish it")
    assert ended.last_words.endswith(
        f"Stopped by {number.name} while publishing. All rows are loaded and their state is out; "
        "what is not published is owed to the next run."
    )
    story.load(**story.settings())
    assert story.loads() == [("COMPLETE", "SUCCESS")] * 2


def test_a_kill_between_the_data_job_and_the_reload(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    story.model(story.orders, story.items, story.activities)
    story.job()
    publishes = story.settings(job=True)
    story.load(1, 1, **publishes)
    dying = story.target.start(killed_at=("RELOADED", "before", "1"), **publishes)
    dying.write(*story.messages(2, 0))
    assert dying.wait().code == -signal.SIGKILL
    assert story.executions() == ["SUCCESS"] * 2
    assert story.shown()[story.activities] == 2
    monkeypatch.setattr(story.target, "look_at", lambda _: None)
    ended = story.load(**publishes)  # without new rows
    assert ended.states
    assert story.executions() == ["SUCCESS"] * 3
    assert story.shown() == {story.orders: 3, story.items: 1, story.activities: 4}
    assert said(story.load(**publishes), "Nothing is to be published")


# --- how fresh


def extracted(stream: str, number: int, time: str) -> bytes:
    return message("RECORD", stream=stream, record={"id": number}, time_extracted=time)


def test_the_newest_counts_wherever_it_stands(story: Story) -> None:
    ended = story.target.load(
        schema(story.orders),
        schema(story.items),
        extracted(story.orders, 1, "2025-01-01T00:00:00Z"),
        extracted(story.items, 1, "2024-06-01T00:00:00Z"),
        extracted(story.orders, 2, "2024-12-01T00:00:00Z"),
        state({}),
        extracted(story.orders, 3, "2024-12-02T00:00:00Z"),
        **story.settings(),
    )
    assert said(ended, r"; fresh as of 2025-01-01T00:00:00\+00:00\.")


def test_each_model_is_as_fresh_as_its_own_tables(story: Story) -> None:
    other = f"{story.name}_other"
    story.emulator.make("data-models", id=f"{story.name}-b", name="Other", tables=[{"name": other}])
    publishes = {
        "data_models": [{"id": story.name}, {"id": f"{story.name}-b", "reload": "complete"}]
    }
    ended = story.target.load(
        *(schema(name) for name in (story.orders, story.items, other)),
        extracted(story.orders, 1, "2024-01-01T00:00:00Z"),
        extracted(story.items, 1, "2023-01-01T00:00:00Z"),
        extracted(other, 1, "2024-05-31T10:00:00Z"),
        state({}),
        **publishes,
    )
    assert said(ended, r"Data model Order to cash: .*; fresh as of 2024-01-01T00:00:00\+00:00\.")
    assert said(ended, r"Data model Other: .*; fresh as of 2024-05-31T10:00:00\+00:00\.")
    ended = story.target.load(
        schema(story.orders),
        extracted(story.orders, 2, "2025-01-01T00:00:00Z"),
        state({}),
        **publishes,
    )
    assert said(ended, r"Data model Order to cash: .*; fresh as of 2025-01-01T00:00:00\+00:00\.")
    assert not said(ended, "Data model Other: .*; fresh as of")  # nothing of it was extracted


def test_after_a_data_job_a_model_is_as_fresh_as_all_that_was_pushed(story: Story) -> None:
    story.job()
    story.load(1, 1, data_jobs=[{"id": story.name}])
    story.model(story.activities)
    ended = story.target.load(
        schema(story.orders),
        extracted(story.orders, 9, "2025-01-01T00:00:00Z"),
        state({}),
        **story.settings(job=True),
    )
    assert said(ended, r"Data model Order to cash: .*; fresh as of 2025-01-01T00:00:00\+00:00\.")


def test_a_stream_that_is_removed_makes_nothing_fresh(story: Story) -> None:
    gone = f"{story.name}_gone"
    story.job()
    ended = story.target.load(
        *(schema(name) for name in (story.orders, story.items, gone)),
        *rows(story.items, [1]),
        extracted(story.orders, 1, "2020-01-01T00:00:00Z"),
        extracted(gone, 1, "2029-01-01T00:00:00Z"),
        state({}),
        **story.settings(job=True),
        stream_maps={gone: None},
    )
    assert said(ended, r"; fresh as of 2020-01-01T00:00:00\+00:00\.")


# --- the report


def read_report(path: Path) -> Any:
    report = json.loads(path.read_text(encoding="utf-8"))
    Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8"))).validate(report)
    return report


def test_the_report_of_a_run_that_published(story: Story, tmp_path: Path) -> None:
    story.job()
    path = tmp_path / "report.json"
    story.load(2, 1, **story.settings(job=True), report_path=str(path))
    job, model = read_report(path)["publish"]
    assert (job["kind"], job["id"], job["status"]) == ("data job", story.name, "SUCCESS")
    assert (model["kind"], model["reloaded"], model["status"]) == ("data model", "all", "SUCCESS")
    assert (sorted(model["tables"]), model["rows"]) == ([story.items, story.orders], 3)


@pytest.mark.parametrize("alone", [False, True])
def test_the_report_of_a_publish_that_failed(story: Story, tmp_path: Path, alone: bool) -> None:
    """What was done before it failed is there, and how that ended which failed."""
    story.job()
    bad = f"{story.name}-bad"
    story.emulator.make("data-models", id=bad, name="Bad", tables=[{"name": "nowhere"}])
    settings = story.settings(job=True) | {"report_path": str(tmp_path / "report.json")}
    settings["data_models"] = [{"id": bad}, {"id": story.name}]
    if alone:
        story.load(1, 1)
        assert publish(story, **settings).code == 6
    else:
        story.fail(6, "TC-REMOTE-09", 1, 1, **settings)
    report = read_report(tmp_path / "report.json")
    assert (report["exit_code"], report["error"]["code"]) == (6, "TC-REMOTE-09")
    assert report["run_id"]
    assert [(done["name"], done["status"]) for done in report["publish"]] == [
        ("Nightly", "SUCCESS"),
        ("Bad", "ERROR"),
        ("Order to cash", "SUCCESS"),
    ]


def test_the_report_of_a_data_job_that_failed(story: Story, tmp_path: Path) -> None:
    story.job("SELECT * FROM nowhere")
    path = tmp_path / "report.json"
    story.fail(6, "TC-REMOTE-08", 1, 1, **story.settings(job=True), report_path=str(path))
    (job,) = read_report(path)["publish"]
    assert (job["kind"], job["status"]) == ("data job", "FAIL")


def test_the_report_of_the_publish_step_alone(story: Story, tmp_path: Path) -> None:
    story.load(1, 1)
    path = tmp_path / "report.json"
    assert publish(story, **story.settings(), report_path=str(path)).code == 0
    report = read_report(path)
    assert (report["exit_code"], report["streams"]) == (0, [])
    assert [done["status"] for done in report["publish"]] == ["SUCCESS"]
    ended = publish(story, **story.settings(), report_path=str(tmp_path / "none" / "r.json"))
    assert ended.code == 2
    assert len(story.loads()) == 1  # that is known before anything is done


# --- access


def test_an_application_key_without_the_permission(tmp_path: Path, switched: Switched) -> None:
    """The kind of key that was accepted is kept; what it lacks is named."""
    setup = tmp_path / "emulator-config.json"
    keys = [{"key": "app-push-key", "kind": "app", "permissions": {"*": ["push"]}}]
    setup.write_text(json.dumps({"keys": keys, "pools": [{"id": "local"}]}))
    story = switched("--config", str(setup))
    story.job()
    ended = publish(story, **story.settings(job=True), api_key="app-push-key")
    assert ended.code == 3
    assert said(ended, r"\[TC-ACCESS-05\] The key may not look at the data job .* \(status 403\)")
    ended = publish(story, **story.settings(), api_key="no-such-key")
    assert (ended.code, ended.last_words.split()[1]) == (3, "[TC-ACCESS-01]")
