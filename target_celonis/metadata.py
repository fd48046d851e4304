"""The metadata columns of the Singer SDK: their names, types and values.

Hides how the values come beside a record's own. Guarantees: pure. Must not know: settings, tables,
the SDK.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from target_celonis.messages import RecordRun

_DATE_TIME = {"type": ["null", "string"], "format": "date-time"}
_INTEGER = {"type": ["null", "integer"]}
METADATA_COLUMNS: dict[str, dict[str, Any]] = {
    "_sdc_extracted_at": _DATE_TIME,
    "_sdc_received_at": _DATE_TIME,
    "_sdc_batched_at": _DATE_TIME,
    "_sdc_deleted_at": _DATE_TIME,
    "_sdc_sequence": _INTEGER,
    "_sdc_table_version": _INTEGER,
    "_sdc_sync_started_at": _INTEGER,
}
"""The columns of ``add_record_metadata``, as the Singer SDK names and types them."""


def values_of_all(version: int | None, now: float, started_at: int) -> dict[str, bytes]:
    """Return the values that all records of a run have, as JSON texts by column.

    Args:
        version: The version of the records.
        now: When they were received, in seconds since 1970.
        started_at: When the run began, in milliseconds since 1970.
    """
    received = f'"{datetime.fromtimestamp(now, UTC).isoformat()}"'
    texts = {
        "_sdc_received_at": received,
        "_sdc_batched_at": received,
        "_sdc_sequence": str(round(now * 1000)),
        "_sdc_table_version": "null" if version is None else str(version),
        "_sdc_sync_started_at": str(started_at),
    }
    return {name: text.encode() for name, text in texts.items()}


def with_metadata_values(run: RecordRun, now: float, started_at: int) -> RecordRun:
    """Put the values beside the record's own, in its JSON text; the last of a name counts.

    A batch file's records have no time of extraction but one that they hold themselves.

    Args:
        run: The records.
        now: When they were received, in seconds since 1970.
        started_at: When the run began, in milliseconds since 1970.
    """
    if run.file is None:
        before = b'{"_sdc_deleted_at":null'
        extracted_at = [b',"_sdc_extracted_at":' + value for value in run.time_extracted]
    else:
        before = b'{"_sdc_deleted_at":null,"_sdc_extracted_at":null'
        extracted_at = [b""] * len(run.records)
    of_all = values_of_all(run.version, now, started_at)
    behind = b"".join(b',"%b":%b' % (name.encode(), of_all[name]) for name in of_all) + b"}"
    records = [
        b"".join(
            (
                before,
                b"" if record[1:-1].isspace() or len(record) == len(b"{}") else b",",
                record[1:-1],
                extracted,
                behind,
            )
        )
        for record, extracted in zip(run.records, extracted_at, strict=True)
    ]
    return replace(run, records=records)
