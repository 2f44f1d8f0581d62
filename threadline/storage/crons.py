"""Crons in the history database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime

from sqlalchemy import ColumnElement, delete, func, insert, select, update

from threadline.domain.records import Cron, CronQuery
from threadline.storage.containment import contains
from threadline.storage.database import Database
from threadline.storage.filtering import is_allowed
from threadline.storage.tables import crons


class SqlCrons:
    """The `Crons` port."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, cron: Cron) -> None:
        async with self._database.writer.begin() as connection:
            await connection.execute(insert(crons).values(**asdict(cron)))

    async def get(self, cron_id: str) -> Cron | None:
        async with self._database.reader.connect() as connection:
            row = (await connection.execute(select(crons).where(crons.c.cron_id == cron_id))).mappings().first()
        return Cron(**row) if row else None

    async def search(self, query: CronQuery) -> tuple[Sequence[Cron], int]:
        matching = _matching(query)
        columns = [crons.c[name] for name in dict.fromkeys((query.sort_by, "created_at", "cron_id"))]
        order = [column.desc() if query.descending else column.asc() for column in columns]
        page = select(crons).where(*matching).order_by(*order).limit(query.limit).offset(query.offset)
        total = select(func.count()).select_from(crons).where(*matching)
        async with self._database.reader.connect() as connection:
            found = [Cron(**row) for row in (await connection.execute(page)).mappings()]
            return found, (await connection.execute(total)).scalar_one()

    async def change(self, cron_id: str, alter: Callable[[Cron], Cron]) -> Cron | None:
        one = crons.c.cron_id == cron_id
        async with self._database.writer.begin() as connection:  # there is one: nobody changes it in between
            row = (await connection.execute(select(crons).where(one))).mappings().first()
            if row is None:
                return None
            changed = alter(Cron(**row))
            await connection.execute(update(crons).where(one).values(**asdict(changed)))
        return changed

    async def delete(self, cron_id: str) -> None:
        async with self._database.writer.begin() as connection:
            await connection.execute(delete(crons).where(crons.c.cron_id == cron_id))

    async def take(
        self, now: datetime, following: Callable[[Cron], datetime | None], *, limit: int = 100
    ) -> Sequence[Cron]:
        query = select(crons).where(crons.c.enabled, crons.c.next_run_at <= now).order_by(crons.c.next_run_at)
        async with self._database.writer.begin() as connection:
            taken = [Cron(**row) for row in (await connection.execute(query.limit(limit))).mappings()]
            for cron in taken:
                advanced = update(crons).where(crons.c.cron_id == cron.cron_id).values(next_run_at=following(cron))
                await connection.execute(advanced)
        return taken

    async def due(self) -> datetime | None:
        query = select(crons.c.next_run_at).where(crons.c.enabled, crons.c.next_run_at.is_not(None))
        async with self._database.reader.connect() as connection:
            found: datetime | None = (
                await connection.execute(query.order_by(crons.c.next_run_at).limit(1))
            ).scalar_one_or_none()
        return found


def _matching(query: CronQuery) -> list[ColumnElement[bool]]:
    matching: list[ColumnElement[bool]] = []
    if query.owner is not None:
        matching.append(crons.c.owner == query.owner)
    if query.allowed is not None:
        matching.append(is_allowed(crons.c.metadata, query.allowed))
    if query.assistant_id is not None:
        matching.append(crons.c.assistant_id == query.assistant_id)
    if query.thread_id is not None:
        matching.append(crons.c.thread_id == query.thread_id)
    if query.enabled is not None:
        matching.append(crons.c.enabled.is_(query.enabled))
    if query.metadata:
        matching.append(contains(crons.c.metadata, query.metadata))
    return matching
