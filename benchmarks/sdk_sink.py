"""The plainest target that the Singer SDK lets one write: a BatchSink that writes Parquet.

Everything of the SDK is as it comes: its reader, its validation of every record, its batch size.
Each batch becomes an Arrow table by ``Table.from_pylist`` and a row group, snappy, of one file for
each stream. Types are those that target-celonis gives.

Stands alone: it runs as a program of its own, ``sdk_sink.py --config FILE``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
from singer_sdk import BatchSink, Target
from singer_sdk import typing as th

if TYPE_CHECKING:
    from collections.abc import Mapping

_TYPES = {"integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_()}
_TEXTS = {"date-time": pa.timestamp("us", "UTC"), "date": pa.date32()}


def arrow_type(schema: Mapping[str, Any]) -> Any:
    """Return the Arrow type of a property; None where it is kept as JSON text."""
    declared = schema.get("type", [])
    kinds = {declared} if isinstance(declared, str) else set(declared)
    (kind, *others) = sorted(kinds - {"null"}) or ("object",)
    if others:
        return None
    if kind == "string":
        return _TEXTS.get(schema.get("format", ""), pa.string())
    return _TYPES.get(kind)


class ParquetSink(BatchSink):
    """Writes each batch of a stream as a row group."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        types = {name: arrow_type(schema) for name, schema in self.schema["properties"].items()}
        self._texts = [name for name, kind in types.items() if kind is None]
        self._floats = [name for name, kind in types.items() if kind == pa.float64()]
        self._arrow = pa.schema([(name, kind or pa.string()) for name, kind in types.items()])
        path = Path(self.config["output_directory"]) / f"{self.stream_name}.parquet"
        self._writer = pq.ParquetWriter(path, self._arrow, compression="snappy")

    def process_batch(self, context: dict[str, Any]) -> None:
        """Write a batch."""
        records = context["records"]
        for record in records:
            for name in self._floats:  # the SDK reads numbers as Decimal
                if record.get(name) is not None:
                    record[name] = float(record[name])
            for name in self._texts:
                if record.get(name) is not None:
                    record[name] = json.dumps(record[name], default=float, ensure_ascii=False)
        self._writer.write_table(pa.Table.from_pylist(records, schema=self._arrow))

    def clean_up(self) -> None:
        """Finish the file."""
        self._writer.close()
        super().clean_up()


class SdkSinkTarget(Target):
    """The target around it."""

    name = "target-sdk-sink"
    config_jsonschema: ClassVar[dict[str, Any]] = th.PropertiesList(
        th.Property("output_directory", th.StringType, required=True)
    ).to_dict()
    default_sink_class = ParquetSink


if __name__ == "__main__":
    SdkSinkTarget.cli()
