"""Asks a database in SQL. The database itself is what keeps it to reading; what stands here makes for clear answers."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import sqlglot
from pydantic import BaseModel, Field
from sqlglot import exp
from sqlglot.errors import SqlglotError

from tools.contract import Arguments, Asker, Tool, ToolFailure

DESCRIPTION = (
    "Ask a {dialect} database. `query` is one SELECT statement; leave it out to see the tables and their columns, and "
    "do that first. Nothing can be changed. At most {rows} rows come back: aggregate, and use ORDER BY with LIMIT."
)
MAX_ROWS = 100
MAX_BYTES = 50_000
"""Of all rows together, as JSON."""
MAX_DEPTH = 100
"""Brackets within brackets that a query may have."""


class SqlArguments(Arguments):
    query: str | None = Field(None, min_length=1, max_length=10_000, description="One SELECT statement.")


class Table(BaseModel):
    name: str
    columns: dict[str, str]
    """Each column with its type."""


class SqlResult(BaseModel):
    """`tables` where no query was given; else `columns` and `rows`. `more` says that there is more than shown."""

    tables: list[Table] | None = None
    columns: list[str] | None = None
    rows: list[list[Any]] | None = None
    more: bool = False


class Database(Protocol):
    """A database that can only be read. Both raise ToolFailure, in words that do not tell where the database is."""

    dialect: str

    async def tables(self) -> Mapping[str, Mapping[str, str]]:
        """Each table with its columns and their types."""
        ...

    async def select(self, query: str, *, rows: int, size: int) -> tuple[Sequence[str], Sequence[Sequence[Any]], bool]:
        """The columns, at most `rows` rows of plain JSON of `size` bytes together, and whether there are more."""
        ...


def tool(database: Database, *, timeout: float) -> Tool:
    """The tool over one database."""

    async def run(asked: SqlArguments, _: Asker) -> SqlResult:
        if asked.query is None:
            found = await database.tables()
            return SqlResult(tables=[Table(name=name, columns=dict(columns)) for name, columns in found.items()])
        query = checked(asked.query, dialect=database.dialect)
        columns, rows, more = await database.select(query, rows=MAX_ROWS, size=MAX_BYTES)
        return SqlResult(columns=list(columns), rows=[list(row) for row in rows], more=more)

    logging.getLogger("sqlglot").setLevel(logging.CRITICAL)  # it would log the query
    named = {"sqlite": "SQLite", "postgres": "PostgreSQL"}[database.dialect]
    description = DESCRIPTION.format(dialect=named, rows=MAX_ROWS)
    return Tool("sql", description, SqlArguments, run, timeout=timeout, untrusted=True)


def checked(query: str, *, dialect: str) -> str:
    """The query without what ends it, if it is one that only reads, as far as reading it tells. Raises ToolFailure."""
    if "\0" in query:
        raise ToolFailure("the query holds a null byte")
    if _depth(query) > MAX_DEPTH:
        raise ToolFailure("the query is nested too deep")
    try:
        statements = [statement for statement in sqlglot.parse(query, dialect=dialect) if statement is not None]
    except SqlglotError:
        raise ToolFailure("the query cannot be read; is it one SELECT statement?") from None
    except RecursionError:
        raise ToolFailure("the query is nested too deep") from None
    if len(statements) != 1:
        raise ToolFailure("one statement at a time")
    if not isinstance(statements[0], exp.Query) or statements[0].find(exp.DML, exp.DDL, exp.Into, exp.Lock) is not None:
        raise ToolFailure("only a SELECT is allowed")
    return query.strip().rstrip(";").strip()


def _depth(query: str) -> int:
    deepest = depth = 0
    for character in query:
        depth += (character == "(") - (character == ")")
        deepest = max(deepest, depth)
    return deepest
