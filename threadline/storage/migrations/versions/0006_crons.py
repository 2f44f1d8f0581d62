"""Crons keep what a project's own authentication said of their owner."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("crons", sa.Column("user", sa.JSON))


def downgrade() -> None:
    op.drop_column("crons", "user")
