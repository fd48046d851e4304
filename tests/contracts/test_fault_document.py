"""The document of faults has every fault, every call and nothing that is not tested."""

from __future__ import annotations

import re
from pathlib import Path

from program import fault_rig, matrix

from celonis_emulator import faults
from target_celonis.errors import CATALOGUE

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs/faults.md").read_text(encoding="utf-8")
CELLS = matrix.all_cells()
ANSWERS = {400, 401, 403, 404, 408, 409, 429, 500, 502, 503, 504}
AFTER_THE_LOAD = {"load_model", "load_status", "execute_data_job", "data_job_status"}
NEVER_CALLED = {"connect", "cancel_job"}
LOADED = "|".join(["loaded", *{words for _, words in fault_rig.WAYS}])
FAILED = r"exit ([367]) (TC-[A-Z]+-\d\d), (table as before|table loaded|a part loaded)"
OUTCOME = re.compile(rf"({LOADED}|{FAILED})([;,] (the job|a NEW job) stays( \(\d\))?)*")


def test_the_document_has_the_cells_that_are_run_and_no_other() -> None:
    assert set(matrix.read_document(TEXT)) == {matrix.place_of(cell) for cell in CELLS}


def test_each_outcome_is_in_known_words() -> None:
    for place, outcome in matrix.read_document(TEXT).items():
        found = OUTCOME.fullmatch(outcome)
        assert found, (place, outcome)
        assert found[3] is None or found[3] in CATALOGUE, (place, outcome)
        assert "a part" not in outcome or place[0] == "job", (place, outcome)


def test_each_fault_of_the_emulator_is_met() -> None:
    effects = {name for fault in matrix.FAULTS.values() for name in fault}
    assert effects == set(faults._EFFECTS)
    answers = (fault.get("answer") for fault in matrix.FAULTS.values())
    statuses = {a if isinstance(a, int) else a["status"] for a in answers if a is not None}
    assert statuses == ANSWERS | {200}
    assert {cell.fault for cell in CELLS} == set(matrix.FAULTS)


def test_each_call_of_a_load_is_met() -> None:
    called = {situation.match for situation in matrix.SITUATIONS}
    assert set(faults.CALLS) - called == AFTER_THE_LOAD | NEVER_CALLED


def test_each_value_of_each_dimension_is_met_by_the_sample() -> None:
    sample = matrix.sample()
    assert set(sample) <= set(CELLS)
    for name in ("situation", "fault", "when", "times", "method", "profile"):
        assert {getattr(c, name) for c in sample} == {getattr(c, name) for c in CELLS}


def test_what_is_written_is_what_is_read() -> None:
    outcomes = {cell: f"loaded by {hash(cell) % 7}" for cell in CELLS}
    text = "# Head\n\nWords.\n\n## The matrix\n"
    for situation in reversed(matrix.SITUATIONS):
        text = matrix.with_results(text, situation, outcomes)
    read = matrix.read_document(text)
    assert read == {matrix.place_of(cell): outcome for cell, outcome in outcomes.items()}
    assert text.startswith("# Head\n\nWords.\n")
    for situation in matrix.SITUATIONS:
        assert matrix.with_results(text, situation, outcomes) == text


def test_the_document_begins_with_plain_words() -> None:
    head = TEXT.partition("\n## The matrix\n")[0]
    assert len(head.split()) > 200
    assert head.index("What you can count on") < head.index("How to read the matrix")
