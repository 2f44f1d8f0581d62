"""What branches are called, and which one is a session's main line."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "branches",
        sa.Column("thread_id", sa.String(36), primary_key=True),
        sa.Column("checkpoint_id", sa.String(100), primary_key=True),
        sa.Column("name", sa.Text),
        sa.Column("main", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("branches")
