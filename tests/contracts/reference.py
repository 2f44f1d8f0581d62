"""InMemorySaver with what it lacks: copying, deleting runs and pruning, done on its dictionaries as documented."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from threadline.domain.errors import Conflict


class Reference(InMemorySaver):
    """`deltas` are the names of the delta channels of all graphs that use it."""

    def __init__(self, *, deltas: Sequence[str]) -> None:
        super().__init__(serde=JsonPlusSerializer(allowed_msgpack_modules=None))
        self._deltas = deltas
        self._held: set[tuple[str, str, str, str]] = set()

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Remember which delta channels this checkpoint holds: those it brings that have not changed since a snapshot.

        What it brings is not enough. InMemorySaver shares values by version, so a copy of a checkpoint that lacks a
        snapshot may bring an earlier one's.
        """
        place = config["configurable"]
        names = checkpoint["channel_values"].keys() & self._deltas
        names -= metadata.get("counters_since_delta_snapshot", {}).keys()
        self._held |= {(place["thread_id"], place["checkpoint_ns"], checkpoint["id"], name) for name in names}
        return super().put(config, checkpoint, metadata, new_versions)

    def checkpoints(self, thread_id: str) -> list[tuple[str, str]]:
        """Namespace and id of all of a thread's checkpoints."""
        found = self.storage[thread_id].items()
        return [(ns, checkpoint_id) for ns, checkpoints in found for checkpoint_id in checkpoints]

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        if self.checkpoints(target_thread_id):
            raise Conflict("The target has a history already.")
        for ns, checkpoints in self.storage[source_thread_id].items():
            self.storage[target_thread_id][ns] = dict(checkpoints)
        for table in (self.writes, self.blobs):
            for key in [key for key in table if key[0] == source_thread_id]:
                value = table[key]  # type: ignore[index]
                table[(target_thread_id, *key[1:])] = dict(value) if isinstance(value, dict) else value  # type: ignore
        self._held |= {(target_thread_id, *place[1:]) for place in self._held if place[0] == source_thread_id}

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Conflict if a checkpoint that stays is not whole without one that goes."""
        gone = {
            (thread_id, ns, checkpoint_id)
            for thread_id in list(self.storage)
            for ns, checkpoint_id in self.checkpoints(thread_id)
            if self._metadata(thread_id, ns, checkpoint_id).get("run_id") in run_ids
        }
        for thread_id, ns in {place[:2] for place in gone}:
            for checkpoint_id in self.storage[thread_id][ns]:
                needed = {(thread_id, ns, each) for each in self._needed(thread_id, ns, checkpoint_id)}
                if (thread_id, ns, checkpoint_id) not in gone and needed & gone:
                    raise Conflict("A checkpoint that stays needs one that goes.")
        for place in gone:
            self._drop(*place)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        for thread_id in thread_ids:
            if strategy == "delete":
                self.delete_thread(thread_id)
                continue
            for ns, checkpoints in self.storage[thread_id].items():
                if not checkpoints:
                    continue
                newest = max(checkpoints)
                kept = {newest, *self._needed(thread_id, ns, newest)}
                for checkpoint_id in kept:
                    checkpoint, metadata, parent_id = checkpoints[checkpoint_id]
                    if parent_id not in checkpoints:  # none, or it was gone before
                        continue
                    while parent_id is not None and parent_id not in kept:  # the nearest ancestor left, if any is
                        parent_id = checkpoints[parent_id][2] if parent_id in checkpoints else None
                    checkpoints[checkpoint_id] = (checkpoint, metadata, parent_id)
                for checkpoint_id in set(checkpoints) - kept:
                    self._drop(thread_id, ns, checkpoint_id)

    def torn(self, thread_id: str) -> set[tuple[str, str]]:
        """Namespace and id of checkpoints that pruning has kept for the newest one and that are not whole themselves.

        It keeps what each delta channel of the newest is rebuilt from. Where one is rebuilt from further back than
        another, of that other one the older checkpoints lack what came before.
        """
        return {place for place in self.checkpoints(thread_id) if not self._whole(thread_id, *place)}

    def _whole(self, thread_id: str, ns: str, checkpoint_id: str) -> bool:
        wanted = set(self._deltas)
        for each in (checkpoint_id, *self._needed(thread_id, ns, checkpoint_id)):
            wanted &= self._unheld(thread_id, ns, each)
        return not wanted

    def _needed(self, thread_id: str, ns: str, checkpoint_id: str) -> Iterator[str]:
        """The ancestors a checkpoint's delta channels are rebuilt from: up to the one that holds the value, or to the
        first where nothing had been written yet."""
        wanted, current = set(self._deltas), checkpoint_id
        while wanted := wanted & self._unheld(thread_id, ns, current):
            current = self.storage[thread_id][ns][current][2] or ""
            if current not in self.storage[thread_id][ns]:
                return
            yield current

    def _unheld(self, thread_id: str, ns: str, checkpoint_id: str) -> set[str]:
        """The channels that were written up to a checkpoint which does not hold their values."""
        versions = self.serde.loads_typed(self.storage[thread_id][ns][checkpoint_id][0])["channel_versions"]
        return {name for name in versions if (thread_id, ns, checkpoint_id, name) not in self._held}

    def _metadata(self, thread_id: str, ns: str, checkpoint_id: str) -> dict[str, Any]:
        metadata: dict[str, Any] = self.serde.loads_typed(self.storage[thread_id][ns][checkpoint_id][1])
        return metadata

    def _drop(self, thread_id: str, ns: str, checkpoint_id: str) -> None:
        del self.storage[thread_id][ns][checkpoint_id]
        self.writes.pop((thread_id, ns, checkpoint_id), None)
