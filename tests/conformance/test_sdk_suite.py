"""The Singer SDK's own tests for targets, against the emulator."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

import pytest
from singer_sdk.testing import get_target_test_class
from singer_sdk.testing.runners import TargetTestRunner

from target_celonis import TargetCelonis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from program.harness import Emulator, Target


class TestSdkSuite(get_target_test_class(TargetCelonis)):  # type: ignore[misc]  # made at run time
    """Every test of the suite; each is a load of its own."""

    @pytest.fixture
    def runner(self, emulator: Emulator, tmp_path: Path) -> Iterator[TargetTestRunner]:
        settings = emulator.settings | {"spool_dir": str(tmp_path / "spool")}
        runner = TargetTestRunner(target_class=TargetCelonis, config=settings)
        yield runner
        if runner._input is not None:
            runner._input.close()  # which the suite leaves to chance
        assert emulator.left_behind() == []


@pytest.mark.parametrize(
    ("file", "tables"),
    [
        ("array_data", {"test_array_data": 4}),
        ("camelcase", {"TestCamelcase": 2}),
        ("duplicate_records", {"test_duplicate_records": 2}),
        (
            "multiple_state_messages",
            {"test_multiple_state_messages_a": 6, "test_multiple_state_messages_b": 6},
        ),
        ("no_primary_keys", {"test_no_pk": 3}),
        ("schema_updates", {"test_schema_updates": 6}),
        ("special_chars_in_attributes", {"test_SpecialChars_in_attributes": 1}),
    ],
)
def test_the_suites_files_load_what_they_hold(
    emulator: Emulator,
    make_target: Callable[..., Target],
    file: str,
    tables: dict[str, int],
) -> None:
    """The suite itself only looks whether a run ends."""
    data = (files("singer_sdk.testing") / "target_test_streams" / f"{file}.singer").read_bytes()
    before = emulator.counts()
    make_target(**emulator.settings).load(data.rstrip(b"\n"), table_name=f"{file}-{{stream}}")
    found = {
        name.removeprefix(f"{file}-"): rows
        for name, rows in emulator.counts().items()
        if name not in before
    }
    assert found == tables
