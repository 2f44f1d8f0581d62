"""Live state in Redis: session documents and the logs of runs that are going on. Every key has a TTL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import orjson
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

from threadline.domain.errors import Unavailable
from threadline.domain.events import Event
from threadline.storage import keys
from threadline.storage.breaker import Breaker

CONNECTIONS = 64

T = TypeVar("T")


@asynccontextmanager
async def open_redis(url: str) -> AsyncIterator[Redis]:
    """A client for everything live. It never repeats a command by itself: a run does not wait for Redis."""
    pool = BlockingConnectionPool.from_url(url, max_connections=CONNECTIONS, retry=Retry(NoBackoff(), 0))
    async with Redis.from_pool(pool) as client:
        yield client


class _Asked:
    """Asks Redis through a breaker and says in the domain's words when it is away."""

    def __init__(self, redis: Redis, *, ttl: int, breaker: Breaker) -> None:
        self._redis = redis
        self._ttl = ttl
        self._breaker = breaker

    async def _ask(self, work: Callable[[Redis], Awaitable[T]]) -> T:
        """What `work` gives. Raises Unavailable."""

        async def boxed() -> tuple[T]:
            return (await work(self._redis),)

        answer = await self._breaker.call(boxed)
        if answer is None:
            raise Unavailable("Redis does not answer.")
        return answer[0]


class RedisLiveSessions(_Asked):
    """The `LiveSessions` port: one JSON document a session, changed in place."""

    async def read(self, session_id: str) -> dict[str, Any] | None:
        key = keys.session(session_id)

        async def work(redis: Redis) -> Any:
            async with redis.pipeline(transaction=False) as pipe:
                pipe.execute_command("JSON.GET", key)
                pipe.expire(key, self._ttl)
                return (await pipe.execute())[0]

        document = await self._ask(work)
        return orjson.loads(document) if document else None

    async def open(self, document: dict[str, Any]) -> None:
        key = keys.session(document["session_id"])

        async def work(redis: Redis) -> None:
            async with redis.pipeline(transaction=True) as pipe:
                pipe.execute_command("JSON.SET", key, "$", orjson.dumps(document), "NX")
                pipe.expire(key, self._ttl)
                await pipe.execute()

        await self._ask(work)

    async def append(self, session_id: str, message: dict[str, Any]) -> bool:
        return await self._change(session_id, [("JSON.ARRAPPEND", "$.messages", message)])

    async def note(self, session_id: str, context: dict[str, Any]) -> None:
        await self._change(session_id, [("JSON.SET", f"$.context.{field}", context[field]) for field in context])

    async def live(self, session_ids: Sequence[str]) -> set[str]:
        if not session_ids:
            return set()

        async def work(redis: Redis) -> list[int]:
            async with redis.pipeline(transaction=False) as pipe:
                for session_id in session_ids:
                    pipe.exists(keys.session(session_id))
                return await pipe.execute()

        found = await self._ask(work)
        return {session_id for session_id, exists in zip(session_ids, found, strict=True) if exists}

    async def delete(self, session_id: str) -> None:
        await self._ask(lambda redis: redis.unlink(keys.session(session_id)))

    async def _change(self, session_id: str, changes: Sequence[tuple[str, str, Any]]) -> bool:
        """Change places of the document and renew its lease; False if the session is not live."""
        key = keys.session(session_id)

        async def work(redis: Redis) -> bool:
            async with redis.pipeline(transaction=False) as pipe:
                pipe.expire(key, self._ttl)
                for command, path, value in changes:
                    pipe.execute_command(command, key, path, orjson.dumps(value))
                live, *answers = await pipe.execute(raise_on_error=False)
            for answer in answers:
                if isinstance(answer, Exception) and not isinstance(answer, ResponseError):
                    raise answer
            return bool(live) and not any(isinstance(answer, ResponseError) for answer in answers)

        return await self._ask(work)


class RedisLiveLog(_Asked):
    """The `LiveLog` port: one stream a run, one entry a batch."""

    async def extend(self, batches: Mapping[str, Sequence[Event]]) -> None:
        async def work(redis: Redis) -> None:
            async with redis.pipeline(transaction=False) as pipe:
                for run_id, events in batches.items():
                    key = keys.run_log(run_id)
                    lines = [(event.id, event.type, event.ns, event.data, event.at) for event in events]
                    pipe.xadd(key, {"events": orjson.dumps(lines)})
                    pipe.expire(key, self._ttl)
                await pipe.execute()

        await self._ask(work)

    async def read(self, run_id: str) -> list[Event]:
        entries: Any = await self._ask(lambda redis: redis.xrange(keys.run_log(run_id)))
        # A batch that was sent again after a lost answer stands there twice.
        events: dict[int, Event] = {}
        for _, fields in entries or ():
            for id, type_, ns, data, at in orjson.loads(fields[b"events"]):
                events[id] = Event(id, type_, tuple(ns), data, at)
        return [events[id] for id in sorted(events)]

    async def delete(self, run_ids: Collection[str]) -> None:
        if run_ids:
            await self._ask(lambda redis: redis.unlink(*(keys.run_log(run_id) for run_id in run_ids)))
