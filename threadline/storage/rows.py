"""Checkpoints and their writes as they are stored: serialized once, so that every copy is the same to the byte."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    PendingWrite,
    get_checkpoint_metadata,
    writes_sort_key,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from threadline.domain.errors import Invalid, Unavailable

_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode  # SQLite may not read another's NaN

WriteRow = tuple[str, str, str, str, str, int, str, str, bytes]
"""Thread id, namespace, checkpoint id, task id, task path, index, channel, type and value of one write."""


@dataclass(frozen=True, slots=True)
class Row:
    """A checkpoint as it is stored."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    parent_id: str | None
    type: str
    checkpoint: bytes
    metadata: bytes

    @classmethod
    def write(
        cls, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata, serde: SerializerProtocol
    ) -> Row:
        """The row AsyncSqliteSaver writes for these arguments. Raises Invalid for what cannot be stored."""
        place = config["configurable"]
        if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("id"), str):
            raise Invalid("A checkpoint must be a dict with an id.")
        type_, data = _serialized(checkpoint, serde)
        try:
            text = _json(get_checkpoint_metadata(config, metadata))
        except (TypeError, ValueError, RecursionError, AttributeError) as error:
            raise Invalid("The metadata of a checkpoint holds a value that is no JSON.") from error
        return cls(
            thread_id=str(place["thread_id"]),
            checkpoint_ns=place.get("checkpoint_ns", ""),
            checkpoint_id=checkpoint["id"],
            parent_id=place.get("checkpoint_id"),
            type=type_,
            checkpoint=data,
            metadata=text.encode("utf-8", "ignore"),
        )

    def read(self, serde: SerializerProtocol, *, pending_writes: list[PendingWrite]) -> CheckpointTuple:
        """What AsyncSqliteSaver reads from this row."""
        return CheckpointTuple(
            config=self.config,
            checkpoint=serde.loads_typed((self.type, self.checkpoint)),
            metadata=metadata_of(self.metadata),
            parent_config=self._place(self.parent_id) if self.parent_id else None,
            pending_writes=pending_writes,
        )

    def read_if_intact(self, serde: SerializerProtocol) -> CheckpointTuple | None:
        """The same without pending writes, of a row that was kept where others write too; None if it is damaged."""
        try:
            held = self.read(serde, pending_writes=[])
            return held if held.checkpoint["id"] == self.checkpoint_id else None
        except (ValueError, TypeError, KeyError, AttributeError, Unavailable):
            return None

    @property
    def config(self) -> RunnableConfig:
        return self._place(self.checkpoint_id)

    @property
    def values(self) -> tuple[Any, ...]:
        """In the order of the table's columns."""
        return (
            self.thread_id,
            self.checkpoint_ns,
            self.checkpoint_id,
            self.parent_id,
            self.type,
            self.checkpoint,
            self.metadata,
        )

    def _place(self, checkpoint_id: str) -> RunnableConfig:
        place = {"thread_id": self.thread_id, "checkpoint_ns": self.checkpoint_ns, "checkpoint_id": checkpoint_id}
        return {"configurable": place}


def write_rows(
    config: RunnableConfig, writes: Sequence[tuple[str, Any]], serde: SerializerProtocol, *, task_id: str, path: str
) -> list[WriteRow]:
    """The rows AsyncSqliteSaver writes for a task's writes. Raises Invalid for what cannot be stored."""
    place = config["configurable"]
    if not place.get("checkpoint_id"):
        raise Invalid("Writes belong to a checkpoint, which their config must name.")
    of = (str(place["thread_id"]), str(place.get("checkpoint_ns", "")), str(place["checkpoint_id"]), task_id, path)
    return [
        (*of, WRITES_IDX_MAP.get(channel, index), channel, *_serialized(value, serde))
        for index, (channel, value) in enumerate(writes)
    ]


def pending_writes(rows: Iterable[Sequence[Any]], serde: SerializerProtocol) -> list[PendingWrite]:
    """Writes in the order a step applies them, from rows of task id, channel, type, value, task path and index."""
    ordered = sorted(rows, key=lambda row: writes_sort_key(row[4], row[0], row[5]))
    return [(row[0], row[1], serde.loads_typed((row[2], row[3]))) for row in ordered]


def metadata_of(stored: bytes | str | None) -> Any:
    """Metadata as it was stored. Raises Unavailable."""
    try:
        return json.loads(stored or "{}")
    except ValueError as error:
        raise Unavailable("A checkpoint is damaged.") from error


def _serialized(value: Any, serde: SerializerProtocol) -> tuple[str, bytes]:
    try:
        return serde.dumps_typed(value)
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise Invalid("A checkpoint holds a value that cannot be stored.") from error
