"""The newest checkpoint of each live thread, kept in Redis by langgraph-checkpoint-redis for as long as it is used."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata, CheckpointTuple
from langgraph.checkpoint.redis.ashallow import AsyncShallowRedisSaver
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from threadline.storage import keys
from threadline.storage.rows import Row
from threadline.storage.serde import seal, strict_serializer, unseal

CONNECTIONS = 64


@asynccontextmanager
async def open_live(redis: str | Redis, *, ttl: int) -> AsyncIterator[LiveCheckpoints]:
    """Live checkpoints with a lease of `ttl` seconds in the Redis of a URL. A client handed in stays its owner's."""
    if isinstance(redis, Redis):
        yield LiveCheckpoints(redis, ttl=ttl)
        return
    # No retries: a run does not wait for Redis.
    pool = BlockingConnectionPool.from_url(redis, max_connections=CONNECTIONS, retry=Retry(NoBackoff(), 0))
    async with Redis.from_pool(pool) as client:
        yield LiveCheckpoints(client, ttl=ttl)


class LiveCheckpoints(AsyncShallowRedisSaver):
    """AsyncShallowRedisSaver with its key and its JSON document, in which the checkpoint is one opaque string.

    Reading and writing are overridden because the package's own lose the parent's id, rebuild objects out of JSON,
    set the TTL in a second command that may never come, and mix the pending writes of all checkpoints. Those are left
    to history here: what Redis holds never changes under one checkpoint id. Nothing is listed, so there is no index.
    """

    def __init__(self, redis: Redis, *, ttl: int) -> None:
        super().__init__(redis_client=redis, ttl={"default_ttl": ttl / 60, "refresh_on_read": True})
        self.serde = strict_serializer()
        self._ttl = ttl

    def create_indexes(self) -> None:
        """None is needed."""

    async def asetup(self) -> None:
        """Nothing to set up."""

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        row = Row.write(config, checkpoint, metadata, self.serde)
        await self.keep(row)
        return row.config

    async def keep(self, row: Row) -> None:
        """Make this row the live checkpoint of its thread and namespace, with a new lease, in one round trip."""
        document = {
            "thread_id": row.thread_id,
            "checkpoint_ns": row.checkpoint_ns,
            "checkpoint_id": row.checkpoint_id,
            "parent_checkpoint_id": row.parent_id,
            "checkpoint": seal(row.type, row.checkpoint),
            "metadata": row.metadata.decode(),
        }
        key = keys.live_checkpoint(row.thread_id, row.checkpoint_ns)
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.execute_command("JSON.SET", key, "$", orjson.dumps(document))
            pipe.expire(key, self._ttl)
            await pipe.execute()

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The live checkpoint without its pending writes, its lease renewed; None if none is there or it is damaged."""
        thread_id = str(config["configurable"]["thread_id"])
        checkpoint_ns = config["configurable"].get("checkpoint_ns", "")
        key = keys.live_checkpoint(thread_id, checkpoint_ns)
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.execute_command("JSON.GET", key)
            pipe.expire(key, self._ttl)
            document, _ = await pipe.execute()
        if document is None:
            return None
        try:
            row = _row(orjson.loads(document))
            held = row.read(self.serde, pending_writes=[])
            intact = (row.thread_id, row.checkpoint_ns, held.checkpoint["id"]) == (
                thread_id,
                checkpoint_ns,
                row.checkpoint_id,
            )
        except (ValueError, TypeError, KeyError, AttributeError):
            return None
        return held if intact else None

    async def forget(self, places: Iterable[tuple[str, str]]) -> bool:
        """Drop the live checkpoints of these threads and namespaces. True once it is done."""
        names = [keys.live_checkpoint(thread_id, checkpoint_ns) for thread_id, checkpoint_ns in places]
        if names:
            await self._redis.unlink(*names)
        return True

    async def ping(self) -> bool:
        return bool(await self._redis.ping())

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        raise NotImplementedError("Pending writes are kept in history only.")

    async def adelete_thread(self, thread_id: str) -> None:
        raise NotImplementedError("History knows the namespaces of a thread: see forget().")


def _row(document: dict[str, Any]) -> Row:
    type_, checkpoint = unseal(document["checkpoint"])
    return Row(
        thread_id=document["thread_id"],
        checkpoint_ns=document["checkpoint_ns"],
        checkpoint_id=document["checkpoint_id"],
        parent_id=document["parent_checkpoint_id"],
        type=type_,
        checkpoint=checkpoint,
        metadata=document["metadata"].encode(),
    )
