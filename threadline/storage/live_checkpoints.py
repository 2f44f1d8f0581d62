"""The newest checkpoint of each live thread, kept in Redis by langgraph-checkpoint-redis for as long as it is used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import orjson
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata, CheckpointTuple
from langgraph.checkpoint.redis.ashallow import AsyncShallowRedisSaver
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from threadline.domain.errors import Invalid, Unavailable
from threadline.storage import keys
from threadline.storage.allowlist import Name
from threadline.storage.rows import Row
from threadline.storage.serde import seal, strict_serializer, unseal

CONNECTIONS = 64
SEND_TIMEOUT = 1.0
"""Seconds one round trip may take before its connection is given up."""


@asynccontextmanager
async def open_live(
    redis: str | Redis, *, ttl: int, allowed: frozenset[Name] = frozenset()
) -> AsyncIterator[LiveCheckpoints]:
    """Live checkpoints with a lease of `ttl` seconds in the Redis of a URL. A client handed in stays its owner's.

    Raises Invalid for what is no address of a Redis, or no lease.
    """
    if not isinstance(ttl, int) or ttl < 1:
        raise Invalid("The lease of live checkpoints must be a whole number of seconds, at least 1.")
    if isinstance(redis, Redis):
        async with aclosing(LiveCheckpoints(redis, ttl=ttl, allowed=allowed)) as live:
            yield live
        return
    # No retries: a run does not wait for Redis.
    try:
        pool = BlockingConnectionPool.from_url(redis, max_connections=CONNECTIONS, retry=Retry(NoBackoff(), 0))
    except (ValueError, TypeError, AttributeError) as error:
        raise Invalid(
            "The live tier must be given as redis://host:port, as an asynchronous client, or None."
        ) from error
    async with Redis.from_pool(pool) as client, aclosing(LiveCheckpoints(client, ttl=ttl, allowed=allowed)) as live:
        yield live


class LiveCheckpoints(AsyncShallowRedisSaver):
    """AsyncShallowRedisSaver with its key and its JSON document, in which the checkpoint is one opaque string.

    Reading and writing are overridden because the package's own lose the parent's id, rebuild objects out of JSON,
    set the TTL in a second command that may never come, and mix the pending writes of all checkpoints. Those are left
    to history here: what Redis holds never changes under one checkpoint id. Nothing is listed, so there is no index.
    """

    def __init__(self, redis: Redis, *, ttl: int, allowed: frozenset[Name] = frozenset()) -> None:
        super().__init__(redis_client=redis, ttl={"default_ttl": ttl / 60, "refresh_on_read": True})
        self.serde = strict_serializer(allowed)
        self._ttl = ttl
        self._batch = _Batch(redis, ttl)

    async def aclose(self) -> None:
        await self._batch.aclose()

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
        """Make this row the live checkpoint of its thread and namespace, with a new lease.

        Whatever other sessions keep at that moment goes in the same round trip.
        """
        document = {
            "thread_id": row.thread_id,
            "checkpoint_ns": row.checkpoint_ns,
            "checkpoint_id": row.checkpoint_id,
            "parent_checkpoint_id": row.parent_id,
            "checkpoint": seal(row.type, row.checkpoint),
            "metadata": row.metadata.decode(),
        }
        key = keys.live_checkpoint(row.thread_id, row.checkpoint_ns)
        await self._batch.set(key, orjson.dumps(document))

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
        except (ValueError, TypeError, KeyError, AttributeError, Unavailable):
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


class _Batch:
    """Sets documents, each with its lease: all that come while one round trip is under way share the next one."""

    def __init__(self, redis: Redis, ttl: int) -> None:
        self._redis = redis
        self._ttl = ttl
        self._brought: list[tuple[str, bytes, asyncio.Future[None]]] = []
        self._sending: asyncio.Task[None] | None = None

    async def set(self, key: str, document: bytes) -> None:
        done = asyncio.get_running_loop().create_future()
        self._brought.append((key, document, done))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send())
        await done

    async def aclose(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait([self._sending])

    async def _send(self) -> None:
        try:
            while self._brought:
                batch = [each for each in self._brought if not each[2].done()]
                self._brought = []
                await self._send_all(batch)
        finally:
            self._sending = None

    async def _send_all(self, batch: Sequence[tuple[str, bytes, asyncio.Future[None]]]) -> None:
        try:
            async with asyncio.timeout(SEND_TIMEOUT), self._redis.pipeline(transaction=True) as pipe:
                for key, document, _ in batch:
                    pipe.execute_command("JSON.SET", key, "$", document)
                    pipe.expire(key, self._ttl)
                await pipe.execute()
        except (RedisError, OSError, TimeoutError) as error:
            for _, _, done in batch:
                if not done.done():
                    done.set_exception(error)
        else:
            for _, _, done in batch:
                if not done.done():
                    done.set_result(None)


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
