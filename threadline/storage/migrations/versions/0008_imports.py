"""Imports: threads that are arriving."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "imports",
        sa.Column("thread_id", sa.String(36), primary_key=True),
        sa.Column("began_at", sa.DateTime, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("imports")
