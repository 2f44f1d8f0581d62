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

from threadline.domain.errors import Invalid
from threadline.storage import keys
from threadline.storage.allowlist import Name
from threadline.storage.rows import Row
from threadline.storage.serde import seal, strict_serializer, unseal

CONNECTIONS = 64

# Each a single command with a single reply, since reading two replies for every checkpoint in Python took longer than
# all of Redis's own work; and a script is done whole or not at all, so that no key is left without its TTL.
KEEP = """
for place, key in ipairs(KEYS) do
    redis.call('JSON.SET', key, '$', ARGV[place + 1])
    redis.call('EXPIRE', key, ARGV[1])
end
"""
FIND = """
local found = {}
for place, key in ipairs(KEYS) do
    local document = redis.pcall('JSON.GET', key)
    found[place] = type(document) == 'string' and document
    if found[place] then redis.call('EXPIRE', key, ARGV[1]) end
end
return found
"""


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
        yield LiveCheckpoints(redis, ttl=ttl, allowed=allowed)
        return
    # No retries: a run does not wait for Redis.
    try:
        pool = BlockingConnectionPool.from_url(redis, max_connections=CONNECTIONS, retry=Retry(NoBackoff(), 0))
    except (ValueError, TypeError, AttributeError) as error:
        raise Invalid(
            "The live tier must be given as redis://host:port, as an asynchronous client, or None."
        ) from error
    async with Redis.from_pool(pool) as client:
        yield LiveCheckpoints(client, ttl=ttl, allowed=allowed)


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
        self._keep = redis.register_script(KEEP)
        self._find = redis.register_script(FIND)

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
        await self.keep([row])
        return row.config

    async def keep(self, rows: Sequence[Row]) -> Sequence[None]:
        """Make these rows the live checkpoints of their threads and namespaces, each with a new lease."""
        names = [keys.live_checkpoint(row.thread_id, row.checkpoint_ns) for row in rows]
        await self._keep(names, [self._ttl, *map(_document, rows)])
        return [None] * len(rows)

    async def find(self, places: Sequence[tuple[str, str]]) -> Sequence[Row | None]:
        """The live checkpoints of these threads and namespaces, their leases renewed.

        None for one that is not there, is damaged or belongs to another place.
        """
        names = [keys.live_checkpoint(thread_id, checkpoint_ns) for thread_id, checkpoint_ns in places]
        found = await self._find(names, [self._ttl])
        rows = [_row(document) if document else None for document in found]
        return [
            row if row and (row.thread_id, row.checkpoint_ns) == place else None
            for row, place in zip(rows, places, strict=True)
        ]

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The live checkpoint without its pending writes; None if none is there or it is damaged."""
        place = (str(config["configurable"]["thread_id"]), config["configurable"].get("checkpoint_ns", ""))
        (row,) = await self.find([place])
        return row.read_if_intact(self.serde) if row else None

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


def _document(row: Row) -> bytes:
    return orjson.dumps(
        {
            "thread_id": row.thread_id,
            "checkpoint_ns": row.checkpoint_ns,
            "checkpoint_id": row.checkpoint_id,
            "parent_checkpoint_id": row.parent_id,
            "checkpoint": seal(row.type, row.checkpoint),
            "metadata": row.metadata.decode(),
        }
    )


def _row(document: bytes | str) -> Row | None:
    try:
        fields = orjson.loads(document)
        type_, checkpoint = unseal(fields["checkpoint"])
        return Row(
            thread_id=fields["thread_id"],
            checkpoint_ns=fields["checkpoint_ns"],
            checkpoint_id=fields["checkpoint_id"],
            parent_id=fields["parent_checkpoint_id"],
            type=type_,
            checkpoint=checkpoint,
            metadata=fields["metadata"].encode(),
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
