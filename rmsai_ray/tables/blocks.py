"""A unit on its way through the stages: one row that carries whole tables as Arrow buffers.

One row per unit never vanishes in a filter, also where no window of the unit could be kept.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

UNIT_BLOCK = pa.schema(
    [
        pa.field("unit_id", pa.string()),
        pa.field("facts", pa.string()),  # JSON: archive rows, seconds, bytes, nodes, log lines
        pa.field("windows", pa.large_binary()),  # Arrow IPC
        pa.field("events", pa.large_binary()),
        pa.field("rejects", pa.large_binary()),
    ]
)

FACTS = ("archives", "seconds", "num_bytes", "nodes", "lines")


@dataclass(frozen=True, kw_only=True)
class UnitTables:
    """Everything that one unit adds to the lake; before encoding, without the scores and with the signals."""

    unit_id: str
    archives: list[dict[str, Any]]
    """Rows of the ``archives`` table, see :class:`rmsai_ray.tables.ledger.LedgerEntry`."""
    windows: pa.Table
    events: pa.Table
    rejects: pa.Table
    seconds: dict[str, float]
    """Time spent so far, by stage."""
    num_bytes: dict[str, int]
    nodes: dict[str, str] = field(default_factory=dict)
    """Where it was worked on so far: stage → node id."""
    lines: list[dict[str, Any]] = field(default_factory=list)
    """One for each archive, for the log."""

    def to_block(self) -> pa.Table:
        """One row of :data:`UNIT_BLOCK`."""
        facts = {name: getattr(self, name) for name in FACTS}
        return pa.table(
            {
                "unit_id": [self.unit_id],
                "facts": [json.dumps(facts)],
                "windows": _to_ipc(self.windows),
                "events": _to_ipc(self.events),
                "rejects": _to_ipc(self.rejects),
            },
            schema=UNIT_BLOCK,
        )

    @classmethod
    def from_block(cls, block: pa.Table) -> list[UnitTables]:
        """The inverse of :meth:`to_block` for every row; tables are views of the block's memory."""
        return [
            cls(
                unit_id=block["unit_id"][row].as_py(),
                windows=_from_ipc(block["windows"][row]),
                events=_from_ipc(block["events"][row]),
                rejects=_from_ipc(block["rejects"][row]),
                **json.loads(block["facts"][row].as_py()),
            )
            for row in range(block.num_rows)
        ]


def _to_ipc(table: pa.Table) -> pa.Array:
    """A table as the one value of a binary column; each buffer is copied once."""
    counted = pa.MockOutputStream()
    _write(table, counted)
    content = pa.allocate_buffer(counted.size())  # a stream that grows copies what it has again and again
    _write(table, pa.FixedSizeBufferWriter(content))
    offsets = pa.py_buffer(np.array([0, content.size], np.int64))
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, content])


def _write(table: pa.Table, sink: pa.NativeFile) -> None:
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


def _from_ipc(value: pa.Scalar) -> pa.Table:
    return pa.ipc.open_stream(value.as_buffer()).read_all()
