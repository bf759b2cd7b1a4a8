"""A row for each entry of a conversation: CSV, lines of JSON, and Parquet.

Every format has the same columns. `text` is what a person would read, and `payload` the stored
entry itself, as JSON.
"""

from __future__ import annotations

import csv
import io
import json
from typing import Any, Final

from sessiondb.clock import iso_from_ms
from sessiondb.errors import InvalidInput
from sessiondb.json_text import DamagedLine, decode_object, dumps
from sessiondb.models import Entry
from sessiondb.transcript.pieces import plain_text, written_at_ms

from .path import Heading

COLUMNS: Final = (
    "session_id",
    "seq",
    "entry_no",
    "entry_id",
    "parent_no",
    "position",
    "type",
    "role",
    "written_at",
    "appended_at_ms",
    "tokens",
    "usage_tokens",
    "idempotency_key",
    "text",
    "payload",
)
NUMBERS: Final = frozenset(
    {
        "seq",
        "entry_no",
        "parent_no",
        "position",
        "appended_at_ms",
        "tokens",
        "usage_tokens",
    }
)
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet takes a cell that begins with one of these for a formula, and runs it."""


def _row(session_id: str, entry: Entry) -> dict[str, Any]:
    """Return an entry's row, in the order of `COLUMNS`."""
    return {
        "session_id": session_id,
        "seq": entry.seq,
        "entry_no": entry.entry_no,
        "entry_id": entry.entry_id,
        "parent_no": entry.parent_no,
        "position": entry.position,
        "type": entry.type,
        "role": entry.role,
        "written_at": iso_from_ms(written_at_ms(entry)),
        "appended_at_ms": entry.appended_at_ms,
        "tokens": entry.tokens,
        "usage_tokens": entry.usage_tokens,
        "idempotency_key": entry.idempotency_key,
        # Half of a surrogate pair, which JSON can hold, has no UTF-8 form.
        "text": plain_text(entry).encode("utf-8", "replace").decode(),
        "payload": entry.payload,
    }


class _Table:
    """What the formats share: the session of a conversation's rows."""

    def __init__(self) -> None:
        self._session_id = ""

    def _rows(self, entries: list[Entry]) -> list[dict[str, Any]]:
        return [_row(self._session_id, entry) for entry in entries]

    def begin(self, heading: Heading) -> bytes:
        """Begin the table of a conversation."""
        self._session_id = heading.info.session_id
        return b""

    def end(self) -> bytes:
        """Return what stands behind the last row."""
        return b""


class Csv(_Table):
    """CSV as RFC 4180 has it, in UTF-8.

    A text that a spreadsheet would take for a formula gets an apostrophe in front.
    """

    def begin(self, heading: Heading) -> bytes:
        """Return the line of the columns' names."""
        super().begin(heading)
        return self._lines([COLUMNS])

    def page(self, entries: list[Entry]) -> bytes:
        """Return the next rows."""
        return self._lines([map(_cell, row.values()) for row in self._rows(entries)])

    @staticmethod
    def _lines(rows: list[Any]) -> bytes:
        text = io.StringIO(newline="")
        csv.writer(text).writerows(rows)
        return text.getvalue().encode()


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


class Ndjson(_Table):
    """One JSON object a line. The payload in it is the stored entry, not a text."""

    def page(self, entries: list[Entry]) -> bytes:
        """Return the next lines."""
        return b"".join(self._line(row) for row in self._rows(entries))

    @staticmethod
    def _line(row: dict[str, Any]) -> bytes:
        payload = row.pop("payload")
        try:
            decode_object(payload)
        except DamagedLine:
            payload = json.dumps(payload)  # a text that is not JSON any more is still shown
        return f'{dumps(row)[:-1]},"payload":{payload}}}\n'.encode()


class Parquet(_Table):
    """Parquet: a group of rows for each page of entries. Needs pyarrow."""

    def __init__(self) -> None:
        super().__init__()
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as error:
            raise InvalidInput(
                "Parquet files are written by pyarrow, which is not installed. "
                "Install the extra: pip install 'sessiondb[parquet]'. CSV needs nothing"
            ) from error
        self._pa, self._sink = pa, _Taken()
        self._schema = pa.schema(
            [(name, pa.int64() if name in NUMBERS else pa.string()) for name in COLUMNS]
        )
        self._writer = pq.ParquetWriter(
            pa.PythonFile(self._sink, mode="w"), self._schema, compression="zstd"
        )

    def page(self, entries: list[Entry]) -> bytes:
        """Return the next group of rows."""
        rows = self._rows(entries)
        self._writer.write_table(self._pa.Table.from_pylist(rows, schema=self._schema))
        return self._sink.take()

    def end(self) -> bytes:
        """Return the file's footer, which says where each group is."""
        self._writer.close()
        return self._sink.take()


class _Taken:
    """A file for pyarrow whose bytes are taken as soon as they are written."""

    closed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._at = 0

    def write(self, data: Any) -> int:
        """Take bytes. They are copied: pyarrow's buffer is its own."""
        part = bytes(data)
        self._parts.append(part)
        self._at += len(part)
        return len(part)

    def tell(self) -> int:
        """Return how many bytes were written."""
        return self._at

    def flush(self) -> None:
        """Do nothing: the bytes are taken by `take`."""

    def close(self) -> None:
        """Do nothing: there is no file."""

    def take(self) -> bytes:
        """Return what was written since the last call."""
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken
