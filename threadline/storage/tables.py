"""The tables of the history database. Checkpoints are LangGraph's own tables in a file of their own."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    func,
    text,
)

metadata = MetaData()


class UtcDateTime(TypeDecorator[datetime]):
    """A DATETIME that is UTC in the file and aware in Python."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC).replace(tzinfo=None) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value else None


chat_history = Table(
    "chat_history",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("session_id", String(100)),
    Column("user_message", Text),
    Column("assistant_message", Text),
    Column("tools_used", JSON),
    Column("model_used", String(100)),
    Column("tokens_used", Integer),
    Column("cost", Float),
    Column("created_at", UtcDateTime),
    Column("extra_metadata", JSON),
)


def turn_id_of(table: Table = chat_history) -> Any:
    """The turn a row of `chat_history` belongs to: what makes writing it twice harmless."""
    return func.json_extract(table.c.extra_metadata, "$.turn_id")


Index("chat_history_by_session", chat_history.c.session_id, chat_history.c.id)

threads = Table(
    "threads",
    metadata,
    Column("thread_id", String(36), primary_key=True),
    Column("owner", String(100), nullable=False),
    Column("title", Text),
    Column("metadata", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("status", String(20), nullable=False, server_default="idle"),
    Column("begun", Integer, nullable=False, server_default="0"),
    Column("config", JSON, nullable=False, server_default="{}"),
    Column("error", JSON),
    Column("interrupts", JSON, nullable=False, server_default="{}"),
    Column("state_updated_at", UtcDateTime),
    Column("ttl", JSON(none_as_null=True)),
    Column("expires_at", UtcDateTime),
    Index("threads_by_owner", "owner", "updated_at", "thread_id"),
    Index("threads_by_expiry", "expires_at"),
)

runs = Table(
    "runs",
    metadata,
    Column("run_id", String(36), primary_key=True),
    Column("thread_id", String(36), nullable=False),
    Column("graph_id", String(100), nullable=False),
    Column("turn_id", String(36), nullable=False),
    Column("status", String(20), nullable=False),
    Column("kwargs", JSON, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    Column("error", JSON),
    Column("assistant_id", String(36)),
    Column("metadata", JSON, nullable=False, server_default="{}"),
    Column("multitask_strategy", String(20), nullable=False, server_default="enqueue"),
    Column("position", Integer, nullable=False, server_default="0"),
    Column("updated_at", UtcDateTime),
    Index("runs_by_thread", "thread_id", "created_at"),
    Index("runs_by_status", "status", "created_at"),
)

UNFINISHED = text("runs.status IN ('pending', 'running')")
"""Spelled as in the index, so that SQLite knows it may use it."""

Index("runs_unfinished", runs.c.thread_id, sqlite_where=text("status IN ('pending', 'running')"))

assistants = Table(
    "assistants",
    metadata,
    Column("assistant_id", String(36), primary_key=True),
    Column("graph_id", String(100), nullable=False),
    Column("owner", String(100), nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("config", JSON, nullable=False),
    Column("context", JSON, nullable=False),
    Column("metadata", JSON, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Index("assistants_by_owner", "owner", "created_at"),
)

assistant_versions = Table(
    "assistant_versions",
    metadata,
    Column("assistant_id", String(36), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("graph_id", String(100), nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("config", JSON, nullable=False),
    Column("context", JSON, nullable=False),
    Column("metadata", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

crons = Table(
    "crons",
    metadata,
    Column("cron_id", String(36), primary_key=True),
    Column("assistant_id", String(36), nullable=False),
    Column("owner", String(100), nullable=False),
    Column("thread_id", String(36)),
    Column("schedule", String(200), nullable=False),
    Column("timezone", String(100)),
    Column("payload", JSON, nullable=False),
    Column("end_time", UtcDateTime),
    Column("next_run_at", UtcDateTime),
    Column("on_run_completed", String(20), nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("metadata", JSON, nullable=False),
    Column("user", JSON(none_as_null=True)),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Index("crons_by_time", "enabled", "next_run_at"),
)

run_logs = Table(
    "run_logs",
    metadata,
    Column("run_id", String(36), primary_key=True),
    Column("thread_id", String(36), nullable=False, index=True),
    Column("events", LargeBinary, nullable=False),
    Column("ended_at", UtcDateTime),
    Index("run_logs_by_end", "ended_at"),
)

pins = Table(
    "pins",
    metadata,
    Column("thread_id", String(36), primary_key=True),
    Column("checkpoint_ns", Text, primary_key=True),
    Column("checkpoint_id", String(100), primary_key=True),
    Column("name", Text),
    Column("created_at", UtcDateTime, nullable=False),
)

branches = Table(
    "branches",
    metadata,
    Column("thread_id", String(36), primary_key=True),
    Column("checkpoint_id", String(100), primary_key=True),
    Column("name", Text),
    Column("main", Boolean, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

imports = Table(
    "imports",
    metadata,
    Column("thread_id", String(36), primary_key=True),
    Column("began_at", UtcDateTime, nullable=False),
)
"""Threads that are arriving: what is there of them at the start of the service was broken off."""

deliveries = Table(
    "deliveries",
    metadata,
    Column("run_id", String(36), primary_key=True),
    Column("thread_id", String(36), index=True),
    Column("url", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)
