"""Threads, runs, turns, pins and archived logs in the history database."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import orjson
from sqlalchemy import (
    ColumnElement,
    Connection,
    Executable,
    RowMapping,
    delete,
    exists,
    func,
    insert,
    literal,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from threadline.domain.errors import Conflict
from threadline.domain.events import Event
from threadline.domain.filters import Filter
from threadline.domain.records import (
    ENDED,
    Delivery,
    Mark,
    Pin,
    Run,
    RunStatus,
    Thread,
    ThreadQuery,
    ThreadStatus,
    Turn,
    TurnSummary,
    shown_error,
)
from threadline.storage import statements
from threadline.storage.containment import contains
from threadline.storage.database import Database
from threadline.storage.deliveries import put as put_delivery
from threadline.storage.filtering import is_allowed
from threadline.storage.statements import SHOWN, STATUS
from threadline.storage.tables import (
    branches,
    chat_history,
    crons,
    deliveries,
    pins,
    run_logs,
    runs,
    threads,
    turn_id_of,
)

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
            await self._database.write(lambda connection: connection.execute(statements.NEW_THREAD, _fields(thread)))
        except IntegrityError as error:
            raise Conflict(f"Thread with ID {thread.thread_id} already exists") from error

    async def get(self, thread_id: str) -> Thread | None:
        row = await self._database.read(lambda connection: _first(connection, statements.THREAD, of_thread=thread_id))
        return Thread(**row) if row else None

    async def list(
        self, *, owner: str | None, allowed: Filter | None = None, limit: int, before: str | None = None
    ) -> list[Thread]:
        position = tuple_(threads.c.updated_at, threads.c.thread_id)
        query = select(*SHOWN).where(*_of(owner, allowed))
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
            await connection.execute(delete(deliveries).where(deliveries.c.thread_id == thread_id))
            await connection.execute(delete(run_logs).where(run_logs.c.thread_id == thread_id))
            await connection.execute(delete(runs).where(runs.c.thread_id == thread_id))
            await connection.execute(delete(crons).where(crons.c.thread_id == thread_id))
            await connection.execute(delete(pins).where(pins.c.thread_id == thread_id))
            await connection.execute(delete(branches).where(branches.c.thread_id == thread_id))
            await connection.execute(delete(chat_history).where(chat_history.c.session_id == thread_id))
            await connection.execute(delete(threads).where(threads.c.thread_id == thread_id))
        await _scrub(self._database)


async def _scrub(database: Database) -> None:
    """Deleted text is overwritten in the file (secure_delete) but may still stand in the write-ahead log."""
    async with database.writer.connect() as connection:
        await connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")


class SqlRuns:
    """The `Runs` port."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        run: Run,
        *,
        title: str | None = None,
        thread: Thread | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        await self._database.write(partial(_create, run=run, title=title, thread=thread, config=dict(config or {})))

    async def get(self, run_id: str) -> Run | None:
        row = await self._database.read(lambda connection: _first(connection, statements.RUN, of_run=run_id))
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

    async def unfinished(
        self, owner: str | None, status: Collection[RunStatus], *, allowed: Filter | None = None
    ) -> Sequence[Run]:
        query = select(runs).join(threads, threads.c.thread_id == runs.c.thread_id)
        query = query.where(*_of(owner, allowed), runs.c.status.in_(status)).order_by(runs.c.created_at)
        async with self._database.reader.connect() as connection:
            return [Run(**row) for row in (await connection.execute(query)).mappings()]

    async def start(self, run: Run) -> None:
        def begin(connection: Connection) -> None:
            values = {"status": "running", "attempt": run.attempt}
            connection.execute(statements.RUN_CHANGES, {"of_run": run.run_id, **values})
            if not run.position:
                connection.execute(statements.THREAD_COUNTS, {"of_thread": run.thread_id, "begins": 1})
                _take_place(connection, run)

        await self._database.write(begin)

    async def begun(self, thread_id: str, *, after: int) -> Sequence[Run]:
        given = {"of_thread": thread_id, "after": after}
        query = statements.RUNS_BEGUN
        rows = await self._database.read(lambda connection: connection.execute(query, given).mappings().all())
        return [Run(**row) for row in rows]

    async def order(self, thread_id: str) -> Sequence[str]:
        query = select(runs.c.run_id).where(runs.c.thread_id == thread_id, runs.c.position > 0)
        query = query.where(runs.c.status.in_(ENDED)).order_by(runs.c.position)
        return await self._database.read(lambda connection: connection.execute(query).scalars().all())

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
        ended = {"status": run.status, "ended_at": run.ended_at, "updated_at": run.ended_at, "error": run.error}
        used = {"of_thread": run.thread_id, **_used(run.ended_at)}

        def end(connection: Connection) -> None:
            connection.execute(statements.RUN_CHANGES, {"of_run": run.run_id, **ended})
            if leaves is None:
                connection.execute(statements.THREAD_KEEPS, used)
            else:
                told = {"left_error": shown_error(run.error), "left_interrupts": interrupts or {}}
                connection.execute(statements.THREAD_IS_LEFT, {**used, "left_status": leaves, **told})
            self._archive(connection, run, log)
            if turn is not None:
                _keep(connection, turn)
            if delivery is not None:
                put_delivery(connection, delivery)

        await self._database.write(end)

    def _archive(self, connection: Connection, run: Run, log: Sequence[Event]) -> None:
        archived = {"run_id": run.run_id, "thread_id": run.thread_id, "ended_at": run.ended_at}
        connection.execute(statements.NEW_LOG, {**archived, "events": pack(log)})

    async def delete(self, run_id: str) -> None:
        async with self._database.writer.begin() as connection:
            await connection.execute(delete(run_logs).where(run_logs.c.run_id == run_id))
            session = select(runs.c.thread_id).where(runs.c.run_id == run_id).scalar_subquery()
            await connection.execute(
                delete(chat_history).where(turn_id_of() == run_id, chat_history.c.session_id == session)
            )
            await connection.execute(delete(runs).where(runs.c.run_id == run_id))

    async def forget(self, thread_id: str, run_ids: Collection[str]) -> None:
        gone = _among(run_ids)
        of_thread = chat_history.c.session_id == thread_id
        async with self._database.writer.begin() as connection:
            for table in (run_logs, runs):
                await connection.execute(delete(table).where(table.c.thread_id == thread_id, table.c.run_id.in_(gone)))
            await connection.execute(delete(chat_history).where(of_thread, turn_id_of().in_(gone)))
            # A turn that asked goes on without the answers that went.
            run = func.json_each(chat_history.c.extra_metadata, "$.run_ids").table_valued("value", name="run")
            held = exists().where(run.c.value.in_(gone)).correlate(chat_history)
            for row in (await connection.execute(select(chat_history).where(of_thread, held))).mappings().all():
                extra = {**row["extra_metadata"], "status": "interrupted"}
                extra["run_ids"] = [run_id for run_id in extra["run_ids"] if run_id not in run_ids]
                values = {"assistant_message": None, "extra_metadata": extra}
                await connection.execute(update(chat_history).where(chat_history.c.id == row["id"]).values(**values))
        await _scrub(self._database)


def _create(
    connection: Connection, *, run: Run, title: str | None, thread: Thread | None, config: dict[str, Any]
) -> None:
    runs_on = {"graph_id": run.graph_id, **({"assistant_id": run.assistant_id} if run.assistant_id else {})}
    begins = int(run.status == "running")
    if thread is not None:
        metadata = {**thread.metadata, **runs_on}
        opened = replace(thread, title=title, metadata=metadata, config=config, begun=begins)
        connection.execute(statements.NEW_THREAD, _fields(opened))
        connection.execute(statements.NEW_RUN, _fields(replace(run, position=begins)))
        return
    taken = {"runs_on": orjson.dumps(runs_on).decode(), "asked": title, "begins": begins, "config": config}
    connection.execute(statements.THREAD_TAKES, {"of_thread": run.thread_id, **_used(run.created_at), **taken})
    connection.execute(statements.NEW_RUN, _fields(run))
    if begins:
        _take_place(connection, run)


def _take_place(connection: Connection, run: Run) -> None:
    """The run is the newest of those that its thread has counted."""
    connection.execute(statements.RUN_TAKES_PLACE, {"of_run": run.run_id, "of_thread": run.thread_id})


class SqlTurns:
    """The `Turns` port: `chat_history`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(
        self, session_id: str, *, limit: int, before: int | None = None, without: Collection[str] = ()
    ) -> list[Turn]:
        query = select(chat_history).where(chat_history.c.session_id == session_id)
        if without:
            run = func.json_each(chat_history.c.extra_metadata, "$.run_ids").table_valued("value", name="run")
            query = query.where(exists().where(run.c.value.not_in(_among(without))).correlate(chat_history))
        if before is not None:
            query = query.where(chat_history.c.id < before)
        query = query.order_by(chat_history.c.id.desc()).limit(limit)
        rows = await self._database.read(lambda connection: connection.execute(query).mappings().all())
        return [Turn(**row) for row in rows]

    async def get(self, session_id: str, turn_id: str) -> Turn | None:
        given = {"of_session": session_id, "of_turn": turn_id}
        row = await self._database.read(lambda connection: _first(connection, statements.TURN, **given))
        return Turn(**row) if row else None

    async def copy(self, source: str, target: str, *, without: Collection[str] = ()) -> None:
        columns = [column for column in chat_history.c if column.name not in ("id", "session_id")]
        rows = select(literal(target), *columns).where(chat_history.c.session_id == source).order_by(chat_history.c.id)
        if without:
            gone = select(func.json_each(orjson.dumps(list(without)).decode()).table_valued("value").c.value)
            rows = rows.where(func.json_extract(chat_history.c.extra_metadata, "$.checkpoint_id").not_in(gone))
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


class SqlMarks:
    """The `Marks` port."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self, thread_id: str) -> list[Mark]:
        query = select(branches).where(branches.c.thread_id == thread_id).order_by(branches.c.created_at)
        rows = await self._database.read(lambda connection: connection.execute(query).mappings().all())
        return [Mark(**row) for row in rows]

    async def put(self, thread_id: str, marks: Sequence[Mark]) -> None:
        def replace_all(connection: Connection) -> None:
            connection.execute(delete(branches).where(branches.c.thread_id == thread_id))
            if marks:
                connection.execute(insert(branches), [asdict(mark) for mark in marks])

        await self._database.write(replace_all)


class SqlArchive:
    """The `Archive` port: each finished run's log as one compressed value."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, run_id: str) -> list[Event] | None:
        query = select(run_logs.c.events).where(run_logs.c.run_id == run_id)
        packed = await self._database.read(lambda connection: connection.execute(query).scalar())
        return None if packed is None else unpack(packed)


def pack(events: Sequence[Event]) -> bytes:
    """Events as compressed JSON: a list of `[id, type, ns, data, at]`."""
    return zlib.compress(orjson.dumps([(e.id, e.type, e.ns, e.data, e.at) for e in events]), level=3)


def unpack(packed: bytes) -> list[Event]:
    return [Event(id, type_, tuple(ns), data, at) for id, type_, ns, data, at in orjson.loads(zlib.decompress(packed))]


def _used(at: datetime | None) -> dict[str, Any]:
    """When a thread is used, as `statements` take it."""
    used = (at or datetime.now(UTC)).astimezone(UTC)
    return {"used_at": at, "used": used.strftime("%Y-%m-%d %H:%M:%S.%f")}


def _fields(record: Run | Thread | Turn) -> dict[str, Any]:
    """A record's fields by name, as they are; `asdict` would copy all that is in them."""
    return {field.name: getattr(record, field.name) for field in fields(record)}


def _first(connection: Connection, query: Executable, **given: Any) -> RowMapping | None:
    return connection.execute(query, given).mappings().first()


def _among(ids: Collection[str]) -> Any:
    """The ids as a query, however many they are."""
    return select(func.json_each(orjson.dumps(list(ids)).decode()).table_valued("value", name="given").c.value)


async def _thread(connection: AsyncConnection, thread_id: str) -> Thread | None:
    row = (await connection.execute(statements.THREAD, {"of_thread": thread_id})).mappings().first()
    return Thread(**row) if row else None


def _of(owner: str | None, allowed: Filter | None) -> list[ColumnElement[bool]]:
    """Whose threads, and what an auth handler says that they must be."""
    return [
        *([threads.c.owner == owner] if owner is not None else []),
        *([is_allowed(threads.c.metadata, allowed)] if allowed is not None else []),
    ]


def _conditions(query: ThreadQuery) -> list[ColumnElement[bool]]:
    conditions = _of(query.owner, query.allowed)
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
    values = _fields(turn)
    del values["id"]
    changing = {name: value for name, value in values.items() if name != "created_at"}
    of = {"of_session": turn.session_id, "of_turn": turn.extra_metadata["turn_id"]}
    if connection.execute(statements.TURN_CHANGES, {**changing, **of}).rowcount == 0:
        connection.execute(statements.NEW_TURN, values)
