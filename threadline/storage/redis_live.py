"""Live state in Redis: session documents and the logs of runs that are going on. Every key has a TTL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any, TypeVar

import orjson
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from threadline.domain.errors import Unavailable
from threadline.domain.events import Event
from threadline.storage import keys
from threadline.storage.breaker import Breaker
from threadline.storage.together import Together

CONNECTIONS = 64

# Each one command with one reply for what many runs want at a time: to pack and parse commands in Python takes longer
# than Redis takes to carry them out.
EXTEND = """
for place, key in ipairs(KEYS) do
    local events = ARGV[place + 1]
    if events then
        redis.call('XADD', key, '*', 'events', events)
        redis.call('EXPIRE', key, ARGV[1])
    else
        redis.call('UNLINK', key)
    end
end
"""
CHANGE = """
local done = {}
for place, key in ipairs(KEYS) do
    done[place] = redis.call('EXPIRE', key, ARGV[1])
    if done[place] == 1 then
        local answer = redis.pcall(ARGV[3 * place - 1], key, ARGV[3 * place], ARGV[3 * place + 1])
        if type(answer) == 'table' and answer.err then done[place] = 0 end
    end
end
return done
"""

T = TypeVar("T")
Change = tuple[str, str, bytes]
"""A command, a path in a session's document and a JSON value."""


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

    def __init__(self, redis: Redis, *, ttl: int, breaker: Breaker) -> None:
        super().__init__(redis, ttl=ttl, breaker=breaker)
        self._script = redis.register_script(CHANGE)
        self._change = Together[tuple[str, Sequence[Change]], bool](self._change_all, size=_size)

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

    async def append(self, session_id: str, message: dict[str, Any], *, context: Mapping[str, Any] = {}) -> bool:
        appended = ("JSON.ARRAPPEND", "$.messages", orjson.dumps(message))
        return bool(await self._change((session_id, [appended, *_noted(context)])))

    async def note(self, session_id: str, context: dict[str, Any]) -> None:
        await self._change((session_id, _noted(context)))

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

    async def _change_all(self, changes: Sequence[tuple[str, Sequence[Change]]]) -> Sequence[bool]:
        """Change places of documents and renew their leases; False for a session that is not live."""
        names = [keys.session(session_id) for session_id, of_session in changes for _ in of_session]
        values = [value for _, of_session in changes for change in of_session for value in change]
        done = iter(await self._ask(lambda redis: self._script(names, [self._ttl, *values])))
        return [sum(islice(done, len(of_session))) == len(of_session) for _, of_session in changes]


def _noted(context: Mapping[str, Any]) -> list[Change]:
    return [("JSON.SET", f"$.context.{field}", orjson.dumps(value)) for field, value in context.items()]


def _size(change: tuple[str, Sequence[Change]]) -> int:
    return sum(len(value) for _, _, value in change[1])


class RedisLiveLog(_Asked):
    """The `LiveLog` port: one stream a run, one entry a batch."""

    def __init__(self, redis: Redis, *, ttl: int, breaker: Breaker) -> None:
        super().__init__(redis, ttl=ttl, breaker=breaker)
        self._extend = redis.register_script(EXTEND)

    async def extend(self, batches: Mapping[str, Sequence[Event]], *, ended: Collection[str] = ()) -> None:
        names = [keys.run_log(run_id) for run_id in (*batches, *ended)]
        lines = [
            orjson.dumps([(event.id, event.type, event.ns, event.data, event.at) for event in events])
            for events in batches.values()
        ]
        await self._ask(lambda redis: self._extend(names, [self._ttl, *lines]))

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
