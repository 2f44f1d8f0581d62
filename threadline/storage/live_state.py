"""Drops live state that is newer than the history it belongs to."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path

from redis.exceptions import RedisError

from threadline.domain.errors import Unavailable
from threadline.storage import keys
from threadline.storage.embedded import check_redis
from threadline.storage.redis_live import open_redis

BATCH = 500
"""Keys that are removed at once."""

_KEYS = (
    ("history.db", "SELECT thread_id FROM threads", keys.session),
    ("history.db", "SELECT run_id FROM runs", keys.run_log),
    ("checkpoints.db", "SELECT DISTINCT thread_id, checkpoint_ns FROM checkpoints", keys.live_checkpoint),
)


async def forget_live(url: str, folders: Iterable[Path]) -> None:
    """Remove from a Redis all it may hold of the threads and runs in these folders' databases.

    Other keys stay: the Redis is not ours alone. Raises Unavailable if it does not answer.
    """
    await check_redis(url)
    names = sorted({name for folder in folders for name in _names(folder)})
    try:
        async with open_redis(url) as redis:
            for start in range(0, len(names), BATCH):
                await redis.unlink(*names[start : start + BATCH])
    except (RedisError, OSError) as error:
        raise Unavailable("Redis went away before its live state was removed.") from error


def _names(folder: Path) -> Iterator[str]:
    for file, query, key in _KEYS:
        if (folder / file).exists():
            with suppress(sqlite3.Error), closing(sqlite3.connect(folder / file)) as connection:
                for row in connection.execute(query):
                    yield key(*row)
