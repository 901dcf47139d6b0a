"""Answers as CSV and Parquet: one line a row, a column a value, the error codes as JSON."""

import csv
import io
from collections.abc import Iterable, Mapping

import orjson

from gateway.errors import FormatUnavailable

Rows = Iterable[Mapping[str, object]]

DIMENSION_COLUMNS = ("start", "endpoint", "model", "version", "status")
VALUE_COLUMNS = (
    "requests",
    "p50_s",
    "p90_s",
    "p99_s",
    "mean_s",
    "p999_s",
    "rate_per_s",
    "errors",
    "server_errors",
    "error_share",
    "error_codes",
    "bytes_in",
    "bytes_out",
    *(
        f"{stage}_{value}_s"
        for stage in ("queue", "decode", "infer")
        for value in ("p50", "p90", "p99", "p999", "mean")
    ),
)
COLUMNS = (*DIMENSION_COLUMNS, *VALUE_COLUMNS)
"""Columns that were not grouped by are empty."""


def as_csv(rows: Rows) -> str:
    """Write rows as CSV with a header. A text that a spreadsheet would compute is quoted by `'`."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([_cell(row.get(column)) for column in COLUMNS])
    return out.getvalue()


def as_parquet(rows: Rows) -> bytes:
    """
    Write rows as Parquet.

    Raises:
        FormatUnavailable: pyarrow is not installed.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - large and optional
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as error:
        raise FormatUnavailable(
            "Parquet needs the extra parquet: pip install 'onnx-gateway[parquet]', or ask for csv."
        ) from error
    text, whole = pa.string(), pa.int64()
    kinds = {
        **dict.fromkeys(("start", "endpoint", "model", "error_codes"), text),
        **dict.fromkeys(("version", "status", "requests", "errors", "server_errors"), whole),
        **dict.fromkeys(("bytes_in", "bytes_out"), whole),
    }
    schema = pa.schema([(name, kinds.get(name, pa.float64())) for name in COLUMNS])
    flat = [
        {
            name: _json(value) if isinstance(value := row.get(name), dict) else value
            for name in COLUMNS
        }
        for row in rows
    ]
    out = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(flat, schema=schema), out)
    return out.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, dict):
        return _json(value) if value else ""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@")):
        return f"'{value}"
    return "" if value is None else value


def _json(value: object) -> str:
    return orjson.dumps(value).decode()
