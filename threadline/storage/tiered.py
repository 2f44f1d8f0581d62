"""The tiered checkpoint saver: history is the truth, Redis holds the newest checkpoint of every live thread."""

from __future__ import annotations

import asyncio
import copy
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_checkpoint_id,
)

from threadline.domain.errors import Invalid
from threadline.domain.records import Course
from threadline.domain.records import Place as Spot
from threadline.domain.stored import Stored
from threadline.storage.breaker import Breaker
from threadline.storage.history import History
from threadline.storage.lines import SavedLines
from threadline.storage.pruner import HistoryPruner, Rebuild
from threadline.storage.rows import Row
from threadline.storage.together import Together

if TYPE_CHECKING:  # its package takes half a second to import, for nothing where there is no live tier
    from threadline.storage.live_checkpoints import LiveCheckpoints

T = TypeVar("T")
Place = tuple[str, str]
"""A thread id and a checkpoint namespace."""

FOUND = 2**17
"""Bytes a live checkpoint is taken to have before it is read."""

_REFUSED = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff,]")
_REFUSED_IN_NS = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(slots=True)
class Tally:
    """What the clones of one saver share. `owed` are the deleted places that Redis was away for."""

    hits: int = 0
    misses: int = 0
    owed: set[Place] = field(default_factory=set)


class TieredSaver(BaseCheckpointSaver[str]):
    """Writes go to history and then to the live tier; the newest checkpoint is read from the live tier if it is there.

    A live checkpoint is used only if history says in the same breath that it is the newest, and its pending writes
    come with that answer; so a crash between the two writes, an expiry, a wipe or a Redis that is away changes
    nothing but the speed. All else is asked of history alone.
    """

    def __init__(self, history: History, live: LiveCheckpoints | None, *, breaker: Breaker) -> None:
        super().__init__(serde=history.serde)
        self._history = history
        self._live = live
        self._breaker = breaker
        self._tally = Tally()
        self._loop = asyncio.get_running_loop()
        self._keep = Together[Row, None](self._keep_live, size=lambda row: len(row.checkpoint))
        self._find = Together[Place, Row | None](self._find_live, size=lambda _: FOUND)

    async def aclose(self) -> None:
        """Wait for what is on its way to the live tier or from it."""
        await self._keep.aclose()
        await self._find.aclose()

    @property
    def live_ok(self) -> bool:
        """Whether there is a live tier and it answered last time."""
        return self._live is not None and self._breaker.closed

    @property
    def live_hits(self) -> int:
        """How many reads the live tier has answered."""
        return self._tally.hits

    @property
    def live_misses(self) -> int:
        """How many reads history had to answer because the live tier did not have them."""
        return self._tally.misses

    def pruner(
        self, records: Path | None = None, *, rebuild: Rebuild | None = None, thrifty: bool = False
    ) -> HistoryPruner:
        """Takes what limits do not leave. Live checkpoints stay: the newest of a thread never goes."""
        return self._history.pruner(records, rebuild=rebuild, thrifty=thrifty)

    async def places(self, thread_id: str, *, run_id: str, ns: str = "") -> Sequence[Spot]:
        """With `course` the `Lineage` port."""
        return await self._history.places(thread_id, run_id=run_id, ns=ns)

    async def course(self, thread_id: str, *, through: str | None = None) -> Course | None:
        return await self._history.course(thread_id, through=through)

    def lines(self, records: Path | None = None) -> SavedLines:
        """How threads branch. `records` as for the pruner."""
        return self._history.lines(records, forget=self._forget)

    async def check_live(self) -> bool:
        """Ask the live tier whether it is there. What `live_ok` will then say."""
        await self._try(lambda live: live.ping())
        return self.live_ok

    def with_allowlist(self, extra_allowlist: Collection[tuple[str, ...]]) -> TieredSaver:
        """A clone whose tiers may also build the given types. It shares connections and state with this one."""
        history = cast(History, self._history.with_allowlist(extra_allowlist))
        if history is self._history:
            return self
        clone = copy.copy(self)
        clone.serde = history.serde
        clone._history = history
        clone._live = self._live and cast("LiveCheckpoints", self._live.with_allowlist(extra_allowlist))
        return clone

    def get_next_version(self, current: str | None, channel: None) -> str:
        return self._history.get_next_version(current, channel)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        place = _place(config)
        if get_checkpoint_id(config) or self._live is None:
            return await self._history.aget_tuple(config)
        newest = await self._history.newest(*place)
        if newest is None:
            return None
        held = await self._find(place)
        if held and held.checkpoint_id == newest.checkpoint_id and (found := held.read_if_intact(self.serde)):
            self._tally.hits += 1
            # Pruning may have changed the parent.
            parent = _with_id(found.config, newest.parent_id) if newest.parent_id else None
            return found._replace(pending_writes=newest.pending_writes, parent_config=parent)
        self._tally.misses += 1
        row = await self._history.row(*place, newest.checkpoint_id)
        if row is None:
            return None
        await self._keep(row)
        return row.read(self.serde, pending_writes=newest.pending_writes)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        if config is not None:
            _place(config)
        async for item in self._history.alist(config, filter=filter, before=before, limit=limit):
            yield item

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        _place(config)
        row = self._history.row_of(config, checkpoint, metadata)  # serialized once for both tiers
        await self._history.keep(row)
        if self._live is not None:
            await self._keep(row)
        return row.config

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Keep the writes in history, which is asked for them at every read. Redis would know nothing better."""
        _place(config)
        await self._history.aput_writes(config, writes, task_id, task_path)

    def taken(self, thread_id: str) -> AbstractContextManager[Iterator[Stored]]:
        """All of a thread as of now, as the history holds it. Blocks."""
        return self._history.taken(_thread_id(thread_id))

    async def keep_stored(self, thread_id: str, stored: Sequence[Stored]) -> None:
        """Write checkpoints, writes and heads to the history as they are."""
        await self._history.keep_stored(_thread_id(thread_id), stored)

    async def adelete_thread(self, thread_id: str) -> None:
        thread_id = _thread_id(thread_id)
        places = [(thread_id, checkpoint_ns) for checkpoint_ns in await self._history.namespaces(thread_id)]
        await self._history.adelete_thread(thread_id)
        await self._forget(places)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        places = await self._history.places_of_runs(run_ids)
        await self._history.adelete_for_runs(run_ids)
        await self._forget(places)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        await self._history.acopy_thread(_thread_id(source_thread_id), _thread_id(target_thread_id))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        ids = [_thread_id(thread_id) for thread_id in thread_ids]
        places = [(thread_id, ns) for thread_id in ids for ns in await self._history.namespaces(thread_id)]
        await self._history.aprune(ids, strategy=strategy)
        if strategy == "delete":
            await self._forget(places)

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        _place(config)
        return await self._history.aget_delta_channel_history(config=config, channels=channels)

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return self._wait(self.aget_tuple(config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        items = self.alist(config, filter=filter, before=before, limit=limit)
        while (item := self._wait(_next(items))) is not None:
            yield item

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        return self._wait(self.aput(config, checkpoint, metadata, new_versions))

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        self._wait(self.aput_writes(config, writes, task_id, task_path))

    def delete_thread(self, thread_id: str) -> None:
        self._wait(self.adelete_thread(thread_id))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        self._wait(self.adelete_for_runs(run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        self._wait(self.acopy_thread(source_thread_id, target_thread_id))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        self._wait(self.aprune(thread_ids, strategy=strategy))

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        return self._wait(self.aget_delta_channel_history(config=config, channels=channels))

    async def _keep_live(self, rows: Sequence[Row]) -> Sequence[None] | None:
        return await self._try(lambda live: live.keep(rows))

    async def _find_live(self, places: Sequence[Place]) -> Sequence[Row | None] | None:
        return await self._try(lambda live: live.find(places))

    async def _try(self, ask: Callable[[LiveCheckpoints], Awaitable[T]]) -> T | None:
        """The live tier's answer, or None if it has none to give."""
        live, owed = self._live, self._tally.owed
        if live is None:
            return None
        answer = await self._breaker.call(lambda: ask(live))
        if owed and self._breaker.closed:
            places = set(owed)
            owed.clear()
            await self._forget(places)
        return answer

    async def _forget(self, places: Collection[Place]) -> None:
        """Drop live checkpoints now, or as soon as Redis is back; until then no read would use them."""
        if places and not await self._try(lambda live: live.forget(places)):
            self._tally.owed.update(places)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Do asynchronous work for a caller in another thread. The loop's own thread would wait for itself."""
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self._loop:
            work.close()
            raise asyncio.InvalidStateError("In the event loop's thread, call the asynchronous method: aget_tuple, ...")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


async def _next(items: AsyncIterator[CheckpointTuple]) -> CheckpointTuple | None:
    return await anext(items, None)


def _with_id(config: RunnableConfig, checkpoint_id: str) -> RunnableConfig:
    return {"configurable": {**config["configurable"], "checkpoint_id": checkpoint_id}}


def _place(config: RunnableConfig) -> Place:
    configurable = config.get("configurable") or {}
    checkpoint_ns = configurable.get("checkpoint_ns", "")
    if not isinstance(checkpoint_ns, str) or _REFUSED_IN_NS.search(checkpoint_ns):
        raise Invalid("A checkpoint namespace must be a text without control characters.")
    return _thread_id(configurable.get("thread_id")), checkpoint_ns


def _thread_id(thread_id: object) -> str:
    """Refuse what a key, a tag or a log line could take for something else. The service's own ids are UUIDs."""
    text = str(thread_id) if isinstance(thread_id, str | int | UUID) else ""
    if not text or _REFUSED.search(text):
        raise Invalid("A thread id must be a text, not empty, without commas or control characters.")
    return text
