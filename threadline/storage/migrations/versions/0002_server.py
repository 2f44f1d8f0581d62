"""Assistants and crons; what the LangGraph Server API shows of threads and runs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for column in (
        sa.Column("status", sa.String(20), nullable=False, server_default="idle"),
        sa.Column("config", sa.JSON, nullable=False, server_default="{}"),
        sa.Column("error", sa.JSON),
        sa.Column("interrupts", sa.JSON, nullable=False, server_default="{}"),
        sa.Column("state_updated_at", sa.DateTime),
    ):
        op.add_column("threads", column)
    for column in (
        sa.Column("assistant_id", sa.String(36)),
        sa.Column("metadata", sa.JSON, nullable=False, server_default="{}"),
        sa.Column("multitask_strategy", sa.String(20), nullable=False, server_default="enqueue"),
        sa.Column("updated_at", sa.DateTime),
    ):
        op.add_column("runs", column)
    op.create_table(
        "assistants",
        sa.Column("assistant_id", sa.String(36), primary_key=True),
        sa.Column("graph_id", sa.String(100), nullable=False),
        sa.Column("owner", sa.String(100), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("config", sa.JSON, nullable=False),
        sa.Column("context", sa.JSON, nullable=False),
        sa.Column("metadata", sa.JSON, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("updated_at", sa.DateTime, nullable=False),
    )
    op.create_index("assistants_by_owner", "assistants", ["owner", "created_at"])
    op.create_table(
        "assistant_versions",
        sa.Column("assistant_id", sa.String(36), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("graph_id", sa.String(100), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("config", sa.JSON, nullable=False),
        sa.Column("context", sa.JSON, nullable=False),
        sa.Column("metadata", sa.JSON, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
    )
    op.create_table(
        "crons",
        sa.Column("cron_id", sa.String(36), primary_key=True),
        sa.Column("assistant_id", sa.String(36), nullable=False),
        sa.Column("owner", sa.String(100), nullable=False),
        sa.Column("thread_id", sa.String(36)),
        sa.Column("schedule", sa.String(200), nullable=False),
        sa.Column("timezone", sa.String(100)),
        sa.Column("payload", sa.JSON, nullable=False),
        sa.Column("end_time", sa.DateTime),
        sa.Column("next_run_at", sa.DateTime),
        sa.Column("on_run_completed", sa.String(20), nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("metadata", sa.JSON, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("updated_at", sa.DateTime, nullable=False),
    )
    op.create_index("crons_by_time", "crons", ["enabled", "next_run_at"])


def downgrade() -> None:
    for table in ("crons", "assistant_versions", "assistants"):
        op.drop_table(table)
    with op.batch_alter_table("runs") as runs:
        for name in ("assistant_id", "metadata", "multitask_strategy", "updated_at"):
            runs.drop_column(name)
    with op.batch_alter_table("threads") as threads:
        for name in ("status", "config", "error", "interrupts", "state_updated_at"):
            threads.drop_column(name)
