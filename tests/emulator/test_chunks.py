"""Chunk uploads: what is taken, what is refused, and that nothing refused stays behind."""

# ruff: noqa: N818, S324 - MD5 is the checksum; an interruption is no error
from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
import requests

from .conftest import HARSH_CHUNK_BYTES, Push, StartServer, parquet

if TYPE_CHECKING:
    from pathlib import Path

ROWS = {"id": [1, 2], "name": ["a", "b"]}


def chunk_files(push: Push, job: str) -> list[Path]:
    database = push.server.database
    return sorted((database.parent / f"{database.name}.chunks" / job).glob("*"))


def test_chunks_are_listed_with_their_md5(push: Push, table: str) -> None:
    job = push.create(table, "DELTA", keys=["id"])
    contents = [parquet(ROWS), parquet({"id": [1]})]
    for content, kind in zip(contents, ("upserted", "deleted"), strict=True):
        answer = push.upload(job, content, kind)
        assert (answer.status_code, answer.content) == (200, b"")
    listed = push.server.get(f"{push.base}/{job}/chunks").json()
    assert [chunk["type"] for chunk in listed] == ["UPSERT", "DELETE"]
    assert [c["checksum"] for c in listed] == [hashlib.md5(c).hexdigest() for c in contents]
    assert {chunk["pushJobId"] for chunk in listed} == {job}
    assert all(isinstance(chunk["creationDate"], int) and chunk["id"] for chunk in listed)
    assert len(chunk_files(push, job)) == 2


@pytest.mark.parametrize("file_type", ["PARQUET", "CSV"])
def test_a_directory_that_looks_like_a_partition_is_no_column(
    start_server: StartServer, tmp_path: Path, table: str, file_type: str
) -> None:
    push = Push(start_server(database=tmp_path / "k=1" / "name=2" / "a.duckdb"))
    job = push.create(table, fileType=file_type)
    content = parquet(ROWS) if file_type == "PARQUET" else b"id,name\n1,a\n2,b\n"
    assert push.upload(job, content).status_code == 200
    shown = push.run(job)
    assert shown["status"] == "DONE", shown["logs"]
    assert push.server.rows(f"SELECT * FROM local.{table} ORDER BY 1") == [["1", "a"], ["2", "b"]]
    assert list(push.server.columns(table)) == ["id", "name"]


def test_files_go_when_the_job_has_run_or_is_deleted(push: Push, table: str) -> None:
    ran = push.create(table)
    push.send(ran, ROWS)
    push.run(ran)
    # Files go just after the status is shown; the next job's end comes after that.
    push.load(table, ROWS)
    assert chunk_files(push, ran) == []
    deleted = push.create(table)
    push.send(deleted, ROWS)
    push.server.session.delete(f"{push.server.url}{push.base}/{deleted}")
    assert chunk_files(push, deleted) == []


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"data": b"PAR1", "headers": {"Content-Type": "application/octet-stream"}}, "multipart"),
        ({"data": b"", "headers": {"Content-Type": "multipart/form-data"}}, "multipart"),
        ({"json": {}}, "multipart"),
        ({}, "multipart"),
        ({"files": {"other": parquet(ROWS)}}, "no part named file"),
        (
            {
                "data": b"garbage",
                "headers": {"Content-Type": "multipart/form-data; boundary=x"},
            },
            "malformed",
        ),
        (
            {
                "data": b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nPAR1',
                "headers": {"Content-Type": "multipart/form-data; boundary=x"},
            },
            "ends too early",
        ),
    ],
)
def test_other_bodies_are_refused(
    push: Push, table: str, options: dict[str, Any], why: str
) -> None:
    job = push.create(table)
    answer = push.server.post(f"{push.base}/{job}/chunks/upserted", **options)
    assert answer.status_code == 400
    assert why in answer.json()["errors"][0]["error"]
    assert push.server.get(f"{push.base}/{job}/chunks").json() == []
    assert chunk_files(push, job) == []


def test_the_first_part_named_file_counts(push: Push, table: str) -> None:
    job = push.create(table)
    files = [
        ("note", ("x", b"not a file")),
        ("file", ("any name.bin", parquet(ROWS), "text/plain")),
        ("file", ("second", b"ignored")),
    ]
    answer = push.server.post(f"{push.base}/{job}/chunks/upserted", files=files)
    assert answer.status_code == 200, answer.text
    assert push.run(job)["status"] == "DONE"


GOOD = parquet(ROWS)


class InterruptedUpload(Exception):
    """The client gives up in the middle of a body."""


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "not a readable Parquet"),
        (b"hello", "not a readable Parquet"),
        (GOOD[:-10], "not a readable Parquet"),
        (parquet({"id": [1], "n": pa.nulls(1)}), "no type"),
        (parquet({"id": [1], "l": [[1]]}), "nested"),
        (parquet({"id": [1], "s": [{"a": 1}]}), "nested"),
        (parquet({"id": [1], "m": pa.array([[("a", 1)]], pa.map_("string", "int64"))}), "nested"),
        (parquet({"id": [1], "Name": ["a"], "NAME": ["b"]}), "same name"),
        (parquet(pa.table([[1], [2]], names=["a", "a"])), "same name"),
        (parquet({"id": [1], "ä": [1], "Ä": [2]}), "same name"),
        (parquet({"n" * 129: [1]}), "longer than 128 bytes"),
        (parquet(pa.table({"id": [1]}).select([])), "no columns"),
    ],
)
def test_files_that_cannot_be_loaded_are_refused(
    push: Push, table: str, content: bytes, why: str
) -> None:
    job = push.create(table)
    answer = push.upload(job, content)
    assert answer.status_code == 400
    assert why in answer.json()["errors"][0]["error"]
    assert push.server.get(f"{push.base}/{job}/chunks").json() == []
    assert chunk_files(push, job) == []


@pytest.mark.parametrize("kind", ["upserted", "deleted"])
def test_a_missing_key_column_answers_500(push: Push, table: str, kind: str) -> None:
    job = push.create(table, "DELTA", keys=["id", "Client"])
    answer = push.upload(job, parquet(ROWS), kind)
    assert answer.status_code == 500
    assert set(answer.json()) == {"reference", "message", "shortMessage"}
    assert "Internal error while validating the Parquet" in answer.text
    assert "Client" in answer.text
    assert push.get(job)["status"] == "NEW"


@pytest.mark.parametrize(("kind", "keys"), [("REPLACE", ["id"]), ("DELTA", None), ("DELTA", [])])
def test_deletes_need_a_delta_with_keys(push: Push, table: str, kind: str, keys: Any) -> None:
    job = push.create(table, kind, keys=keys)
    assert push.upload(job, parquet(ROWS), "deleted").status_code == 400


def test_a_chunk_above_the_limit_is_refused_and_read_to_its_end(harsh: Push, table: str) -> None:
    content = parquet({"id": range(100_000)}, compression="none", use_dictionary=False)
    job = harsh.create(table)
    for size, status in ((HARSH_CHUNK_BYTES, 400), (HARSH_CHUNK_BYTES + 1, 413), (8_000_000, 413)):
        answer = harsh.upload(job, b"x" * size)
        assert answer.status_code == status
        assert chunk_files(harsh, job) == []
    assert answer.json()["status"] == 413
    # The connection is still good.
    assert harsh.upload(job, content).status_code == 200


def test_an_upload_without_a_valid_key_is_read_to_its_end(push: Push, table: str) -> None:
    job = push.create(table)
    url = f"{push.server.url}{push.base}/{job}/chunks/upserted"
    answer = requests.post(url, files={"file": b"x" * 5_000_000}, timeout=20)
    assert answer.status_code == 401


def test_a_broken_upload_leaves_nothing(push: Push, table: str) -> None:
    job = push.create(table)

    def broken() -> Any:
        yield b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + GOOD
        raise InterruptedUpload

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    with pytest.raises(InterruptedUpload):
        push.server.post(f"{push.base}/{job}/chunks/upserted", data=broken(), headers=headers)
    push.server.session.close()
    assert push.server.get(f"{push.base}/{job}/chunks").json() == []


def test_parallel_uploads_are_all_kept_in_one_order(push: Push, table: str) -> None:
    job = push.create(table, "DELTA", keys=["id"])
    contents = [parquet({"id": [1], "upload": [n]}) for n in range(24)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda content: push.upload(job, content), contents))
    assert {answer.status_code for answer in answers} == {200}
    listed = push.server.get(f"{push.base}/{job}/chunks").json()
    assert len({chunk["id"] for chunk in listed}) == 24
    push.run(job)
    # The last in the listed order wins.
    by_checksum = {hashlib.md5(content).hexdigest(): n for n, content in enumerate(contents)}
    last = by_checksum[listed[-1]["checksum"]]
    assert push.server.rows(f'SELECT upload FROM local."{table}"') == [[str(last)]]
