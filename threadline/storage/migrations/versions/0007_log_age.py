"""When each log's run ended, so that old logs are found without looking at all."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("run_logs", sa.Column("ended_at", sa.DateTime))
    op.execute("UPDATE run_logs SET ended_at = (SELECT ended_at FROM runs WHERE runs.run_id = run_logs.run_id)")
    op.create_index("run_logs_by_end", "run_logs", ["ended_at"])


def downgrade() -> None:
    op.drop_index("run_logs_by_end", "run_logs")
    op.drop_column("run_logs", "ended_at")
