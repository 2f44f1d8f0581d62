"""Threads, runs, turns, pins and archived logs in the history database."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import orjson
from sqlalchemy import (
    ColumnElement,
    Connection,
    case,
    delete,
    exists,
    func,
    insert,
    literal,
    select,
    tuple_,
    type_coerce,
    update,
)
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from threadline.domain.errors import Conflict
from threadline.domain.events import Event
from threadline.domain.records import (
    Delivery,
    Pin,
    Run,
    RunStatus,
    Thread,
    ThreadQuery,
    ThreadStatus,
    Turn,
    TurnSummary,
)
from threadline.storage.containment import contains
from threadline.storage.database import Database
from threadline.storage.deliveries import put as put_delivery
from threadline.storage.tables import (
    UNFINISHED,
    chat_history,
    crons,
    deliveries,
    pins,
    run_logs,
    runs,
    threads,
    turn_id_of,
)

STATUS = case((exists().where(runs.c.thread_id == threads.c.thread_id, UNFINISHED), "busy"), else_=threads.c.status)
SHOWN = [STATUS.label("status") if column is threads.c.status else column for column in threads.c]
ORDERS: dict[str, ColumnElement[Any]] = {
    "status": STATUS,
    "created_at": threads.c.created_at,
    "updated_at": threads.c.updated_at,
    "state_updated_at": func.coalesce(threads.c.state_updated_at, threads.c.updated_at),
    "expires_at": threads.c.expires_at,
}


class SqlThreads:
    """The `Threads` port."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, thread: Thread) -> None:
        try:
            await self._database.write(lambda connection: connection.execute(insert(threads).values(**asdict(thread))))
        except IntegrityError as error:
            raise Conflict(f"Thread with ID {thread.thread_id} already exists") from error

    async def get(self, thread_id: str) -> Thread | None:
        query = select(*SHOWN).where(threads.c.thread_id == thread_id)
        row = await self._database.read(lambda connection: connection.execute(query).mappings().first())
        return Thread(**row) if row else None

    async def list(self, *, owner: str, limit: int, before: str | None = None) -> list[Thread]:
        position = tuple_(threads.c.updated_at, threads.c.thread_id)
        query = select(*SHOWN).where(threads.c.owner == owner)
        if before is not None:
            query = query.where(
                position
                < select(threads.c.updated_at, threads.c.thread_id)
                .where(threads.c.thread_id == before)
                .scalar_subquery()
            )
        query = query.order_by(threads.c.updated_at.desc(), threads.c.thread_id.desc()).limit(limit)
        async with self._database.reader.connect() as connection:
            return [Thread(**row) for row in (await connection.execute(query)).mappings()]

    async def search(self, query: ThreadQuery) -> tuple[Sequence[Thread], int]:
        matching = select(*SHOWN).where(*_conditions(query))
        order = ORDERS.get(query.sort_by, threads.c.thread_id)
        page = matching.order_by(
            order.desc() if query.descending else order,
            threads.c.thread_id.desc() if query.descending else threads.c.thread_id,
        )
        async with self._database.reader.connect() as connection:
            total = (await connection.execute(select(func.count()).select_from(matching.subquery()))).scalar_one()
            rows = await connection.execute(page.limit(query.limit).offset(query.offset))
            return [Thread(**row) for row in rows.mappings()], total

    async def change(self, thread_id: str, changes: Mapping[str, Any]) -> Thread | None:
        async with self._database.writer.begin() as connection:
            before = await _thread(connection, thread_id)
            if before is None:
                return None
            values = dict(changes)
            if "metadata" in values:
                values["metadata"] = {**before.metadata, **values["metadata"]}
            await connection.execute(update(threads).where(threads.c.thread_id == thread_id).values(**values))
            return await _thread(connection, thread_id)

    async def delete(self, thread_id: str) -> None:
        async with self._database.writer.begin() as connection:
            await connection.execute(delete(run_logs).where(run_logs.c.thread_id == thread_id))
            await connection.execute(delete(runs).where(runs.c.thread_id == thread_id))
            await connection.execute(delete(crons).where(crons.c.thread_id == thread_id))
            await connection.execute(delete(pins).where(pins.c.thread_id == thread_id))
            await connection.execute(delete(deliveries).where(deliveries.c.thread_id == thread_id))
            await connection.execute(delete(chat_history).where(chat_history.c.session_id == thread_id))
            await connection.execute(delete(threads).where(threads.c.thread_id == thread_id))
        # Deleted text is overwritten in the file (secure_delete) but may still stand in the write-ahead log.
        async with self._database.writer.connect() as connection:
            await connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")


class SqlRuns:
    """The `Runs` port."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, run: Run, *, title: str | None = None, thread: Thread | None = None) -> None:
        await self._database.write(partial(_create, run=run, title=title, thread=thread))

    async def get(self, run_id: str) -> Run | None:
        query = select(runs).where(runs.c.run_id == run_id)
        row = await self._database.read(lambda connection: connection.execute(query).mappings().first())
        return Run(**row) if row else None

    async def list(self, *, thread_id: str | None = None, status: Collection[RunStatus] = ()) -> list[Run]:
        query = select(runs).order_by(runs.c.created_at, runs.c.run_id)
        if thread_id is not None:
            query = query.where(runs.c.thread_id == thread_id)
        if status:
            query = query.where(runs.c.status.in_(status))
        async with self._database.reader.connect() as connection:
            return [Run(**row) for row in (await connection.execute(query)).mappings()]

    async def page(
        self, thread_id: str, *, status: RunStatus | None = None, limit: int, offset: int = 0
    ) -> Sequence[Run]:
        query = select(runs).where(runs.c.thread_id == thread_id)
        if status is not None:
            query = query.where(runs.c.status == status)
        query = query.order_by(runs.c.created_at.desc(), runs.c.run_id.desc()).limit(limit).offset(offset)
        async with self._database.reader.connect() as connection:
            return [Run(**row) for row in (await connection.execute(query)).mappings()]

    async def unfinished(self, owner: str, status: Collection[RunStatus]) -> Sequence[Run]:
        query = select(runs).join(threads, threads.c.thread_id == runs.c.thread_id)
        query = query.where(threads.c.owner == owner, runs.c.status.in_(status)).order_by(runs.c.created_at)
        async with self._database.reader.connect() as connection:
            return [Run(**row) for row in (await connection.execute(query)).mappings()]

    async def start(self, run: Run) -> None:
        def begin(connection: Connection) -> None:
            values = {"status": "running", "attempt": run.attempt}
            connection.execute(update(runs).where(runs.c.run_id == run.run_id).values(**values))
            if not run.position:
                _take_place(connection, run)

        await self._database.write(begin)

    async def begun(self, thread_id: str, *, after: int) -> Sequence[Run]:
        query = select(runs).where(runs.c.thread_id == thread_id, runs.c.position > after).order_by(runs.c.position)
        rows = await self._database.read(lambda connection: connection.execute(query).mappings().all())
        return [Run(**row) for row in rows]

    async def finish(
        self,
        run: Run,
        *,
        turn: Turn | None,
        log: Sequence[Event],
        leaves: ThreadStatus | None = None,
        interrupts: Mapping[str, Any] | None = None,
        delivery: Delivery | None = None,
    ) -> None:
        def end(connection: Connection) -> None:
            ended = {"status": run.status, "ended_at": run.ended_at, "updated_at": run.ended_at, "error": run.error}
            connection.execute(update(runs).where(runs.c.run_id == run.run_id).values(**ended))
            left: dict[str, Any] = {"updated_at": run.ended_at, "expires_at": _renewed(run.ended_at)}
            if leaves is not None:
                told = {"status": leaves, "error": _told(run.error), "interrupts": interrupts or {}}
                left |= {"state_updated_at": run.ended_at, **told}
            connection.execute(update(threads).where(threads.c.thread_id == run.thread_id).values(**left))
            archived = {"run_id": run.run_id, "thread_id": run.thread_id, "events": pack(log)}
            statement = upsert(run_logs).values(**archived)
            connection.execute(
                statement.on_conflict_do_update(index_elements=["run_id"], set_={"events": statement.excluded.events})
            )
            if turn is not None:
                _keep(connection, turn)
            if delivery is not None:
                put_delivery(connection, delivery)

        await self._database.write(end)

    async def delete(self, run_id: str) -> None:
        async with self._database.writer.begin() as connection:
            await connection.execute(delete(run_logs).where(run_logs.c.run_id == run_id))
            session = select(runs.c.thread_id).where(runs.c.run_id == run_id).scalar_subquery()
            await connection.execute(
                delete(chat_history).where(turn_id_of() == run_id, chat_history.c.session_id == session)
            )
            await connection.execute(delete(runs).where(runs.c.run_id == run_id))


def _create(connection: Connection, *, run: Run, title: str | None, thread: Thread | None) -> None:
    runs_on = {"graph_id": run.graph_id, **({"assistant_id": run.assistant_id} if run.assistant_id else {})}
    begins = run.status == "running"
    if thread is not None:
        opened = replace(thread, title=title, metadata={**thread.metadata, **runs_on}, begun=int(begins))
        connection.execute(insert(threads).values(**asdict(opened)))
        connection.execute(insert(runs).values(**asdict(replace(run, position=int(begins)))))
        return
    connection.execute(insert(runs).values(**asdict(run)))
    if begins:
        _take_place(connection, run)
    used: dict[str, Any] = {
        "updated_at": run.created_at,
        "expires_at": _renewed(run.created_at),
        "metadata": func.json_patch(threads.c.metadata, orjson.dumps(runs_on).decode()),
    }
    if title is not None:
        used["title"] = func.coalesce(threads.c.title, title)
    connection.execute(update(threads).where(threads.c.thread_id == run.thread_id).values(**used))


def _take_place(connection: Connection, run: Run) -> None:
    of_run = threads.c.thread_id == run.thread_id
    connection.execute(update(threads).where(of_run).values(begun=threads.c.begun + 1))
    place = select(threads.c.begun).where(of_run).scalar_subquery()
    connection.execute(update(runs).where(runs.c.run_id == run.run_id).values(position=place))


def _told(error: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A run's error as its thread shows it."""
    return {"error": error.get("type") or error["kind"], "message": error["message"]} if error else None


class SqlTurns:
    """The `Turns` port: `chat_history`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self, session_id: str, *, limit: int, before: int | None = None) -> list[Turn]:
        query = select(chat_history).where(chat_history.c.session_id == session_id)
        if before is not None:
            query = query.where(chat_history.c.id < before)
        query = query.order_by(chat_history.c.id.desc()).limit(limit)
        rows = await self._database.read(lambda connection: connection.execute(query).mappings().all())
        return [Turn(**row) for row in rows]

    async def get(self, session_id: str, turn_id: str) -> Turn | None:
        query = select(chat_history).where(chat_history.c.session_id == session_id, turn_id_of() == turn_id)
        row = await self._database.read(lambda connection: connection.execute(query).mappings().first())
        return Turn(**row) if row else None

    async def copy(self, source: str, target: str) -> None:
        columns = [column for column in chat_history.c if column.name not in ("id", "session_id")]
        rows = select(literal(target), *columns).where(chat_history.c.session_id == source).order_by(chat_history.c.id)
        names = ["session_id", *(column.name for column in columns)]
        async with self._database.writer.begin() as connection:
            await connection.execute(insert(chat_history).from_select(names, rows))

    async def summary(self, session_ids: Sequence[str]) -> dict[str, TurnSummary]:
        last = (
            select(chat_history.c.session_id, func.count().label("turns"), func.max(chat_history.c.id).label("id"))
            .where(chat_history.c.session_id.in_(session_ids))
            .group_by(chat_history.c.session_id)
            .subquery()
        )
        status = func.json_extract(chat_history.c.extra_metadata, "$.status")
        query = select(last.c.session_id, last.c.turns, status).join(chat_history, chat_history.c.id == last.c.id)
        async with self._database.reader.connect() as connection:
            return {row[0]: TurnSummary(row[1], row[2]) for row in await connection.execute(query)}


class SqlPins:
    """The `Pins` port."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, pin: Pin) -> Pin:
        place = (pin.thread_id, pin.checkpoint_ns, pin.checkpoint_id)
        statement = upsert(pins).values(**asdict(pin))
        statement = statement.on_conflict_do_update(
            index_elements=list(pins.primary_key), set_={"name": statement.excluded.name}
        )
        async with self._database.writer.begin() as connection:
            await connection.execute(statement)
            row = (await connection.execute(select(pins).where(tuple_(*pins.primary_key) == place))).mappings().one()
        return Pin(**row)

    async def remove(self, thread_id: str, checkpoint_ns: str, checkpoint_id: str) -> None:
        place = (thread_id, checkpoint_ns, checkpoint_id)
        async with self._database.writer.begin() as connection:
            await connection.execute(delete(pins).where(tuple_(*pins.primary_key) == place))

    async def list(self, thread_id: str) -> list[Pin]:
        query = select(pins).where(pins.c.thread_id == thread_id).order_by(pins.c.created_at, pins.c.checkpoint_id)
        async with self._database.reader.connect() as connection:
            return [Pin(**row) for row in (await connection.execute(query)).mappings()]


class SqlArchive:
    """The `Archive` port: each finished run's log as one compressed value."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, run_id: str) -> list[Event] | None:
        async with self._database.reader.connect() as connection:
            packed = (await connection.execute(select(run_logs.c.events).where(run_logs.c.run_id == run_id))).scalar()
        return None if packed is None else unpack(packed)


def pack(events: Sequence[Event]) -> bytes:
    """Events as compressed JSON: a list of `[id, type, ns, data, at]`."""
    return zlib.compress(orjson.dumps([(e.id, e.type, e.ns, e.data, e.at) for e in events]), level=3)


def unpack(packed: bytes) -> list[Event]:
    return [Event(id, type_, tuple(ns), data, at) for id, type_, ns, data, at in orjson.loads(zlib.decompress(packed))]


def _renewed(used_at: datetime | None) -> Any:
    """When a thread expires that is used now: its time to live begins anew."""
    used = (used_at or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    minutes = func.json_extract(threads.c.ttl, "$.ttl")
    renewed = func.strftime("%Y-%m-%d %H:%M:%f000", used, func.printf("%+f minutes", minutes))
    return case((minutes.is_not(None), type_coerce(renewed, threads.c.expires_at.type)))


async def _thread(connection: AsyncConnection, thread_id: str) -> Thread | None:
    row = (await connection.execute(select(*SHOWN).where(threads.c.thread_id == thread_id))).mappings().first()
    return Thread(**row) if row else None


def _conditions(query: ThreadQuery) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if query.owner is not None:
        conditions.append(threads.c.owner == query.owner)
    if query.ids:
        named = func.json_each(orjson.dumps(list(query.ids)).decode()).table_valued("value", name="named")
        conditions.append(threads.c.thread_id.in_(select(named.c.value)))
    if query.metadata:
        conditions.append(contains(threads.c.metadata, query.metadata))
    if query.status is not None:
        conditions.append(STATUS.in_([query.status]))
    if query.expiring:
        conditions.append(threads.c.expires_at.is_not(None))
    return conditions


def _keep(connection: Connection, turn: Turn) -> None:
    """Write the turn's row; a resumed turn already has one."""
    values = {name: value for name, value in asdict(turn).items() if name not in ("id", "created_at")}
    changed = connection.execute(
        update(chat_history)
        .where(turn_id_of() == turn.extra_metadata["turn_id"], chat_history.c.session_id == turn.session_id)
        .values(**values)
    )
    if changed.rowcount == 0:
        connection.execute(insert(chat_history).values(**values, created_at=turn.created_at))
