"""The first tables: chat_history, threads, runs and their logs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "chat_history",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("session_id", sa.String(100)),
        sa.Column("user_message", sa.Text),
        sa.Column("assistant_message", sa.Text),
        sa.Column("tools_used", sa.JSON),
        sa.Column("model_used", sa.String(100)),
        sa.Column("tokens_used", sa.Integer),
        sa.Column("cost", sa.Float),
        sa.Column("created_at", sa.DateTime),
        sa.Column("extra_metadata", sa.JSON),
    )
    op.create_index("chat_history_by_session", "chat_history", ["session_id", "id"])
    op.execute("CREATE UNIQUE INDEX chat_history_by_turn ON chat_history (json_extract(extra_metadata, '$.turn_id'))")
    op.create_table(
        "threads",
        sa.Column("thread_id", sa.String(36), primary_key=True),
        sa.Column("owner", sa.String(100), nullable=False),
        sa.Column("title", sa.Text),
        sa.Column("metadata", sa.JSON, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("updated_at", sa.DateTime, nullable=False),
    )
    op.create_index("threads_by_owner", "threads", ["owner", "updated_at", "thread_id"])
    op.create_table(
        "runs",
        sa.Column("run_id", sa.String(36), primary_key=True),
        sa.Column("thread_id", sa.String(36), nullable=False),
        sa.Column("graph_id", sa.String(100), nullable=False),
        sa.Column("turn_id", sa.String(36), nullable=False),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("kwargs", sa.JSON, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("ended_at", sa.DateTime),
        sa.Column("error", sa.JSON),
    )
    op.create_index("runs_by_thread", "runs", ["thread_id", "created_at"])
    op.create_index("runs_by_status", "runs", ["status", "created_at"])
    op.create_table(
        "run_logs",
        sa.Column("run_id", sa.String(36), primary_key=True),
        sa.Column("thread_id", sa.String(36), nullable=False),
        sa.Column("events", sa.LargeBinary, nullable=False),
    )
    op.create_index("ix_run_logs_thread_id", "run_logs", ["thread_id"])


def downgrade() -> None:
    for table in ("run_logs", "runs", "threads", "chat_history"):
        op.drop_table(table)
