"""Logs of runs that are old enough to go. The runs themselves, their turns and their checkpoints stay."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, Connection, delete, func, select

from threadline.domain.records import PrunedLogs
from threadline.storage.database import Database
from threadline.storage.tables import run_logs

PORTION = 200
"""Logs that go in one transaction, at most."""


class SqlOldLogs:
    """The `OldLogs` port."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def look(self, before: datetime, *, thread_id: str | None = None) -> PrunedLogs:
        size = func.coalesce(func.sum(func.length(run_logs.c.events)), 0)
        query = select(func.count(), size).where(*_old(before, thread_id))
        return PrunedLogs(*await self._database.read(lambda connection: connection.execute(query).one()))

    async def prune(self, before: datetime, *, thread_id: str | None = None) -> PrunedLogs:
        runs = size = 0

        def remove(connection: Connection) -> tuple[int, int]:
            query = select(run_logs.c.run_id, func.length(run_logs.c.events)).where(*_old(before, thread_id))
            found = connection.execute(query.limit(PORTION)).all()
            connection.execute(delete(run_logs).where(run_logs.c.run_id.in_([run_id for run_id, _ in found])))
            return len(found), sum(length for _, length in found)

        while True:
            gone, freed = await self._database.write(remove)
            runs, size = runs + gone, size + freed
            if gone < PORTION:
                break
        if runs:
            # What was deleted is overwritten in the file (secure_delete) but may still stand in the write-ahead log.
            async with self._database.writer.connect() as connection:
                await connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        return PrunedLogs(runs, size)


def _old(before: datetime, thread_id: str | None) -> list[ColumnElement[bool]]:
    of_thread = [run_logs.c.thread_id == thread_id] if thread_id is not None else []
    return [run_logs.c.ended_at < before, *of_thread]
