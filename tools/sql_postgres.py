"""A PostgreSQL database for the SQL tool, by a role that can only read: one that can do more is not used at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import SecretStr

from tools.contract import ToolFailure

if TYPE_CHECKING:
    from psycopg import AsyncConnection

LONGEST_ROW = 50_000
"""Characters of a row as JSON; the server cuts it there."""
CONNECT_SECONDS = 5
MORE_THAN_READING = """
SELECT r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls
    OR pg_has_role('pg_write_all_data', 'MEMBER') OR pg_has_role('pg_execute_server_program', 'MEMBER')
    OR pg_has_role('pg_read_server_files', 'MEMBER') OR pg_has_role('pg_write_server_files', 'MEMBER')
    OR pg_has_role('pg_signal_backend', 'MEMBER')
    OR has_database_privilege(current_database(), 'CREATE')
    OR EXISTS (SELECT FROM pg_namespace n WHERE n.nspname !~ '^pg_' AND has_schema_privilege(n.oid, 'CREATE'))
    OR EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname !~ '^(pg_|information_schema)' AND c.relkind IN ('r', 'p', 'v', 'f')
                 AND has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE'))
FROM pg_roles r WHERE r.rolname = current_user
"""
COLUMNS = """
SELECT table_schema, table_name, column_name, data_type FROM information_schema.columns
WHERE table_schema !~ '^(pg_|information_schema)' ORDER BY 1, 2, ordinal_position LIMIT 5000
"""


class PostgresDatabase:
    """The database at `url`. A statement may take `seconds`."""

    dialect = "postgres"

    def __init__(self, url: SecretStr, *, seconds: float) -> None:
        self._url = url
        self._seconds = seconds

    async def tables(self) -> Mapping[str, Mapping[str, str]]:
        async with self._reading() as connection:
            found = await (await connection.execute(COLUMNS)).fetchall()
        tables: dict[str, dict[str, str]] = {}
        for schema, table, column, kind in found:
            tables.setdefault(table if schema == "public" else f"{schema}.{table}", {})[column] = kind
        return tables

    async def select(self, query: str, *, rows: int, size: int) -> tuple[Sequence[str], Sequence[Sequence[Any]], bool]:
        # The server makes each row one text of limited length, so that no value is larger here than it may be. The
        # line break ends a comment at the query's end. With parameters, if none, a text can hold one statement only.
        limited = f"SELECT left(row_to_json(row)::text, {LONGEST_ROW + 1}) FROM (\n{query}\n) AS row LIMIT {rows + 1}"
        found: list[dict[str, Any]] = []
        async with self._reading() as connection:
            async for (text,) in connection.cursor().stream(limited.replace("%", "%%").encode(), ()):
                size -= len(text)
                if (size < 0 or len(text) > LONGEST_ROW) and not found:
                    raise ToolFailure("the first row is too large; select fewer or shorter columns")
                if size < 0 or len(found) == rows or len(text) > LONGEST_ROW:
                    return _shaped(found, more=True)
                found.append(orjson.loads(text))
        return _shaped(found, more=False)

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection[Any]]:
        """A connection in a transaction that only reads and is rolled back. Raises ToolFailure."""
        try:
            from psycopg import AsyncConnection, Error, OperationalError
        except ImportError:
            raise ToolFailure("the PostgreSQL driver is not installed") from None
        try:
            connection = await AsyncConnection.connect(
                self._url.get_secret_value(),
                connect_timeout=CONNECT_SECONDS,
                options=f"-c default_transaction_read_only=on -c statement_timeout={int(self._seconds * 1000)}"
                " -c idle_in_transaction_session_timeout=30000 -c lock_timeout=1000"
                " -c max_parallel_workers_per_gather=0",
            )
        except (OperationalError, OSError):
            raise ToolFailure("the database cannot be reached", retryable=True) from None
        try:
            (more,) = await (await connection.execute(MORE_THAN_READING)).fetchone() or (True,)
            if more:
                raise ToolFailure("the role this database is asked by may do more than read, so it is not asked")
            yield connection
        except Error as error:
            raise ToolFailure(_words(error, seconds=self._seconds)) from None
        except asyncio.CancelledError:
            await asyncio.shield(asyncio.ensure_future(connection.cancel_safe(timeout=2)))
            raise
        finally:
            await connection.close()


def _shaped(rows: Sequence[Mapping[str, Any]], *, more: bool) -> tuple[Sequence[str], Sequence[Sequence[Any]], bool]:
    columns = list(rows[0]) if rows else []
    return columns, [[row[column] for column in columns] for row in rows], more


def _words(error: Any, *, seconds: float) -> str:
    match error.sqlstate:
        case "57014":
            return f"the query took longer than {seconds:g} seconds and was stopped"
        case "25006" | "42501":
            return "the database allows reading only"
        case "53100" | "53200" | "54000" | "54001" | "54011":
            return "the query takes more than the database allows"
        case _:
            primary = getattr(error.diag, "message_primary", None) or "it gave no reason"
            return f"the database refused the query: {primary[:300]}"
