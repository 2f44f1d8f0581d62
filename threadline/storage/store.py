"""The store in a file: LangGraph's own SQLite store, with search by meaning that needs no extension of SQLite.

The tables are those of `AsyncSqliteStore`, so that it opens the same file. What it does differently:

- search by meaning ranks the vectors with numpy; the original needs sqlite-vec, which many a Python cannot load
- a text is embedded before the transaction, so that a slow model holds up nobody else
- an expired item is gone at once, not at the next sweep; an overwritten one keeps its `created_at`
- filters mean what `threadline.domain.filters` says; a failed batch is rolled back
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiosqlite
import numpy as np
import orjson
import structlog
from langchain_core.embeddings import Embeddings
from langgraph.store.base import (
    GetOp,
    ListNamespacesOp,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    get_text_at_path,
    validate_op_namespace,
)
from langgraph.store.sqlite.aio import AsyncSqliteStore

from threadline.domain import filters
from threadline.domain.errors import Invalid, Unavailable
from threadline.storage.filtering import FILTER_MATCHES, filter_matches

log = structlog.get_logger(__name__)

SWEEP_MINUTES = 5.0
EXPIRE = "DELETE FROM store WHERE expires_at IS NOT NULL AND expires_at < strftime('%Y-%m-%d %H:%M:%f', 'now')"
REFRESH = """UPDATE store SET expires_at = DATETIME(CURRENT_TIMESTAMP, '+' || ttl_minutes || ' minutes')
             WHERE prefix = ? AND key = ? AND ttl_minutes IS NOT NULL"""
PUT = """INSERT INTO store (prefix, key, value, created_at, updated_at, expires_at, ttl_minutes)
         VALUES (?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (prefix, key) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at,
         expires_at = excluded.expires_at, ttl_minutes = excluded.ttl_minutes"""
INDEXED_BY = "CREATE TABLE IF NOT EXISTS store_indexed_by (embedding TEXT NOT NULL, dims INTEGER NOT NULL)"


Vector = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Index:
    """What makes items searchable by meaning. `name` tells one embedding from another; `$` is the whole item."""

    embeddings: Embeddings
    name: str
    dims: int
    fields: tuple[str, ...] = ("$",)


@asynccontextmanager
async def open_store(
    path: Path, *, index: Index | None = None, sweep_minutes: float = SWEEP_MINUTES
) -> AsyncIterator[Store]:
    """The store at `path`, made if need be. Expired items are deleted from the file every `sweep_minutes`.

    Raises Unavailable if the file cannot be used.
    """
    try:
        connection = await aiosqlite.connect(path, isolation_level=None)
        try:
            store = Store(connection, index=index)
            await store.setup()
        except BaseException:
            await connection.close()
            raise
    except sqlite3.Error as error:
        raise Unavailable(f"The store {path} cannot be opened: {error}.") from error
    sweeper = asyncio.create_task(_sweep(store, sweep_minutes * 60))
    try:
        yield store
    finally:
        sweeper.cancel()
        await asyncio.gather(sweeper, return_exceptions=True)
        await store.aclose()
        await connection.close()


class Store(AsyncSqliteStore):
    """A `BaseStore` over one connection. Whether a read renews an item's time to live is each operation's to say."""

    def __init__(self, connection: aiosqlite.Connection, *, index: Index | None) -> None:
        super().__init__(connection, ttl={"refresh_on_read": True})
        self._index = index

    async def setup(self) -> None:
        if self.is_setup:
            return
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", "foreign_keys=ON"):
            await self.conn.execute(f"PRAGMA {pragma}")
        await self.conn.create_function(FILTER_MATCHES, 2, filter_matches, deterministic=True)
        await super().setup()
        for statement in self.VECTOR_MIGRATIONS:
            await self.conn.executescript(statement)
        await self.conn.execute(INDEXED_BY)
        if self._index is not None:
            await self._forget_other_vectors(self._index)

    async def aclose(self) -> None:
        """End the task that gathers operations. Nothing may be asked afterwards."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Reads see the state before the batch; of two writes to one item the last one counts."""
        asked = list(ops)
        for op in asked:
            _check(op)
        puts = list({(op.namespace, op.key): op for op in asked if isinstance(op, PutOp)}.values())
        rows = [_row(op) for op in puts if op.value is not None]
        texts = {(".".join(op.namespace), op.key): self._texts(op) for op in puts if op.value is not None}
        queries = [op.query for op in asked if isinstance(op, SearchOp) and op.query] if self._index else []
        vectors = await self._embedded([text for found in texts.values() for _, text in found] + queries)
        try:
            async with self._cursor() as cursor:
                await cursor.execute(EXPIRE)
                results = await self._read(cursor, asked, vectors)
                await self._write(cursor, puts, rows)
                await cursor.executemany(
                    "INSERT OR REPLACE INTO store_vectors (prefix, key, field_name, embedding) VALUES (?, ?, ?, ?)",
                    [
                        (*place, field, vectors[text].tobytes())
                        for place, found in texts.items()
                        for field, text in found
                    ],
                )
        except sqlite3.Error as error:
            log.error("store_failed", error=str(error))
            raise Unavailable("The store cannot be used at the moment.") from error
        return results

    async def _read(self, cursor: aiosqlite.Cursor, asked: list[Op], vectors: dict[str, Vector]) -> list[Result]:
        results: list[Result] = [None] * len(asked)
        gets = [(number, op) for number, op in enumerate(asked) if isinstance(op, GetOp)]
        try:
            await self._batch_get_ops(gets, results, cursor)
        except ValueError as error:
            raise error.__cause__ if isinstance(error.__cause__, sqlite3.Error) else error from None
        lists = [(number, op) for number, op in enumerate(asked) if isinstance(op, ListNamespacesOp)]
        await self._batch_list_namespaces_ops(lists, results, cursor)
        for number, op in enumerate(asked):
            if isinstance(op, SearchOp):
                results[number] = await self._found(cursor, op, vectors)
        return results

    async def _write(self, cursor: aiosqlite.Cursor, puts: list[PutOp], rows: list[tuple[Any, ...]]) -> None:
        for op in puts:
            table = "store" if op.value is None else "store_vectors"
            await cursor.execute(f"DELETE FROM {table} WHERE prefix = ? AND key = ?", (".".join(op.namespace), op.key))
        await cursor.executemany(PUT, rows)

    @asynccontextmanager
    async def _cursor(self, *, transaction: bool = True) -> AsyncIterator[aiosqlite.Cursor]:
        async with self.lock:
            try:
                await self.conn.execute("BEGIN IMMEDIATE")
                async with self.conn.cursor() as cursor:
                    yield cursor
            except BaseException:
                await self.conn.rollback()
                raise
            await self.conn.commit()

    def _texts(self, op: PutOp) -> list[tuple[str, str]]:
        """What of an item is embedded: (field, text)."""
        if self._index is None or op.index is False:
            return []
        found = []
        for field in self._index.fields if op.index is None else op.index:
            texts = get_text_at_path(op.value, field)
            found += [(f"{field}.{i}" if len(texts) > 1 else field, text) for i, text in enumerate(texts)]
        return found

    async def _embedded(self, texts: Sequence[str]) -> dict[str, Vector]:
        """The vector of each text. Raises Unavailable if the embedding fails or gives what is not asked for."""
        if self._index is None or not texts:
            return {}
        different = list(dict.fromkeys(texts))
        try:
            embedded = await self._index.embeddings.aembed_documents(different)
            vectors = np.asarray(embedded, dtype="<f4")
        except Exception as error:
            log.error("embedding_failed", embedding=self._index.name, exc_info=error)
            raise Unavailable("The embedding of the store does not work at the moment.") from error
        if vectors.shape != (len(different), self._index.dims):
            log.error("embedding_failed", embedding=self._index.name, shape=vectors.shape, dims=self._index.dims)
            raise Unavailable(f"The embedding of the store gives no vectors of {self._index.dims} numbers.")
        return dict(zip(different, vectors, strict=True))

    async def _found(self, cursor: aiosqlite.Cursor, op: SearchOp, vectors: dict[str, Vector]) -> list[SearchItem]:
        where, values = _where(op)
        if op.query and self._index is not None:
            best = await self._ranked(cursor, op, vectors[op.query])
            rows = []
            for place, score in best:
                one = "SELECT prefix, key, value, created_at, updated_at FROM store WHERE prefix = ? AND key = ?"
                await cursor.execute(one, place)
                rows += [(*row, score) for row in await cursor.fetchall()]
        else:
            await cursor.execute(
                f"""SELECT prefix, key, value, created_at, updated_at, NULL FROM store WHERE {where}
                    ORDER BY updated_at DESC, prefix, key LIMIT ? OFFSET ?""",
                (*values, op.limit, op.offset),
            )
            rows = [tuple(row) for row in await cursor.fetchall()]
        if op.refresh_ttl:
            await cursor.executemany(REFRESH, [row[:2] for row in rows])
        return [
            SearchItem(
                namespace=tuple(prefix.split(".")),
                key=key,
                value=orjson.loads(value),
                created_at=created_at,
                updated_at=updated_at,
                score=score,
            )
            for prefix, key, value, created_at, updated_at, score in rows
        ]

    async def _ranked(
        self, cursor: aiosqlite.Cursor, op: SearchOp, query: Vector
    ) -> list[tuple[tuple[str, str], float]]:
        """The page of items asked for, nearest in meaning first, each with its nearest field's cosine."""
        where, values = _where(op)
        await cursor.execute(
            f"""SELECT prefix, key, embedding FROM store JOIN store_vectors USING (prefix, key)
                WHERE length(embedding) = ? AND {where}""",
            (query.nbytes, *values),
        )
        rows = list(await cursor.fetchall())
        scores = await asyncio.to_thread(_cosines, b"".join(row[2] for row in rows), query)
        best: dict[tuple[str, str], float] = {}
        for (prefix, key, _), score in zip(rows, scores, strict=True):
            best[prefix, key] = max(score, best.get((prefix, key), -1.0))
        return sorted(best.items(), key=lambda found: -found[1])[op.offset : op.offset + op.limit]

    async def _forget_other_vectors(self, index: Index) -> None:
        """Vectors of another embedding mean nothing beside those of this one."""
        async with self._cursor() as cursor:
            await cursor.execute("SELECT embedding, dims FROM store_indexed_by")
            known = await cursor.fetchone()
            if known is not None and tuple(known) == (index.name, index.dims):
                return
            await cursor.execute("DELETE FROM store_vectors")
            if cursor.rowcount:
                log.warning(
                    "store_vectors_forgotten",
                    vectors=cursor.rowcount,
                    hint="Another embedding is configured: items are found by meaning once they are put again.",
                )
            await cursor.execute("DELETE FROM store_indexed_by")
            await cursor.execute("INSERT INTO store_indexed_by VALUES (?, ?)", (index.name, index.dims))


async def _sweep(store: Store, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await store.abatch([])
        except sqlite3.Error as error:
            log.warning("store_not_swept", error=str(error))


def _check(op: Op) -> None:
    """Raises ValueError for a namespace or a filter that is none, Invalid for what is no Unicode text."""
    validate_op_namespace(op)
    if isinstance(op, SearchOp) and op.filter:
        filters.check(op.filter)
    try:
        if isinstance(op, GetOp | PutOp):
            "".join((*op.namespace, op.key)).encode()
        elif isinstance(op, SearchOp):
            "".join((*op.namespace_prefix, op.query or "")).encode()
        else:
            "".join(label for condition in op.match_conditions or () for label in condition.path).encode()
    except UnicodeEncodeError as error:
        raise Invalid("A namespace, a key or a query holds half a character.") from error


def _row(op: PutOp) -> tuple[Any, ...]:
    """The row of an item that is put now. Raises Invalid for what is no JSON."""
    now = datetime.now(UTC)
    try:
        value = orjson.dumps(dict(op.value or {})).decode()
        expires_at = None if op.ttl is None else (now + timedelta(minutes=op.ttl)).strftime("%Y-%m-%d %H:%M:%S.%f")
    except (TypeError, OverflowError) as error:
        raise Invalid(f"The item cannot be stored: {error}.") from error
    return (".".join(op.namespace), op.key, value, now.isoformat(), now.isoformat(), expires_at, op.ttl)


def _where(op: SearchOp) -> tuple[str, tuple[Any, ...]]:
    """The condition of a search, and its values. `/` is what follows `.` in the order of characters."""
    conditions, values = ["TRUE"], list[Any]()
    if op.namespace_prefix:
        prefix = ".".join(op.namespace_prefix)
        conditions.append("(prefix = ? OR (prefix > ? AND prefix < ?))")
        values += [prefix, f"{prefix}.", f"{prefix}/"]
    if op.filter:
        conditions.append(f"{FILTER_MATCHES}(value, ?)")
        values.append(json.dumps(op.filter))
    return " AND ".join(conditions), tuple(values)


def _cosines(blob: bytes, query: Vector) -> list[float]:
    vectors = np.frombuffer(blob, dtype="<f4").reshape(-1, len(query))
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(query)
    cosines: list[float] = (vectors @ query / np.where(lengths == 0, 1, lengths)).tolist()
    return cosines
