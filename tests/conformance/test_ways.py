"""The fast way to read the input comes to what the careful one comes to."""

from __future__ import annotations

from pathlib import Path

import pytest

from .ways import CAREFUL, WAYS, Way, read

HERE = Path(__file__).parent
FILES = sorted([*(HERE / "corpus").glob("*.jsonl"), *(HERE / "samples").glob("*.jsonl")])
SETTINGS = ({}, {"hard_delete": True}, {"load_method": "append-only"})


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_way_comes_to_the_same(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    data = path.read_bytes()
    for number, settings in enumerate(SETTINGS):
        careful = read(data, CAREFUL, tmp_path / f"careful-{number}", **settings)
        for name, way in enumerate((*WAYS, Way(converters=3, sizes=(997,), aim_bytes=1))):
            assert read(data, way, tmp_path / f"{number}-{name}", **settings) == careful
