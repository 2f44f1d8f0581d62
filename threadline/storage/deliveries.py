"""Deliveries of webhooks in the history database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

from sqlalchemy import Connection, delete, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from threadline.domain.records import Delivery
from threadline.storage.database import Database
from threadline.storage.tables import deliveries


class SqlDeliveries:
    """The `Deliveries` port."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, delivery: Delivery) -> None:
        await self._database.write(partial(put, delivery=delivery))

    async def pending(self, *, limit: int) -> Sequence[Delivery]:
        query = select(deliveries).order_by(deliveries.c.created_at, deliveries.c.run_id).limit(limit)
        rows = await self._database.read(lambda connection: connection.execute(query).mappings().all())
        return [Delivery(**row) for row in rows]

    async def tried(self, run_id: str, attempts: int) -> None:
        change = update(deliveries).where(deliveries.c.run_id == run_id).values(attempts=attempts)
        await self._database.write(lambda connection: connection.execute(change))

    async def remove(self, run_id: str) -> None:
        change = delete(deliveries).where(deliveries.c.run_id == run_id)
        await self._database.write(lambda connection: connection.execute(change))


def put(connection: Connection, delivery: Delivery) -> None:
    """Keep a delivery, in place of an earlier one of the same run."""
    values = asdict(delivery)
    statement = upsert(deliveries).values(**values)
    connection.execute(statement.on_conflict_do_update(index_elements=["run_id"], set_=values))
