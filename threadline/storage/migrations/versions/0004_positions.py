"""Each run's place on its thread, by which the thread's events are numbered."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("runs", sa.Column("position", sa.Integer, nullable=False, server_default="0"))
    op.add_column("threads", sa.Column("begun", sa.Integer, nullable=False, server_default="0"))
    op.execute(
        "UPDATE runs SET position = (SELECT count(*) FROM runs AS earlier WHERE earlier.thread_id = runs.thread_id "
        "AND (earlier.created_at, earlier.run_id) <= (runs.created_at, runs.run_id)) WHERE status != 'pending'"
    )
    op.execute(
        "UPDATE threads SET begun = "
        "(SELECT coalesce(max(position), 0) FROM runs WHERE runs.thread_id = threads.thread_id)"
    )


def downgrade() -> None:
    with op.batch_alter_table("runs") as runs:
        runs.drop_column("position")
    with op.batch_alter_table("threads") as threads:
        threads.drop_column("begun")
