"""What becomes of a thread, and when; which threads are busy; a turn may stand in a copy of its thread too."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TURN = "json_extract(extra_metadata, '$.turn_id')"


def upgrade() -> None:
    op.add_column("threads", sa.Column("ttl", sa.JSON))
    op.add_column("threads", sa.Column("expires_at", sa.DateTime))
    op.create_index("threads_by_expiry", "threads", ["expires_at"])
    unfinished = sa.text("status IN ('pending', 'running')")
    op.create_index("runs_unfinished", "runs", ["thread_id"], sqlite_where=unfinished)
    op.drop_index("chat_history_by_turn", "chat_history")
    op.execute(f"CREATE UNIQUE INDEX chat_history_by_turn ON chat_history (session_id, {TURN})")


def downgrade() -> None:
    op.drop_index("chat_history_by_turn", "chat_history")
    op.execute(f"CREATE UNIQUE INDEX chat_history_by_turn ON chat_history ({TURN})")
    op.drop_index("runs_unfinished", "runs")
    op.drop_index("threads_by_expiry", "threads")
    with op.batch_alter_table("threads") as threads:
        for name in ("ttl", "expires_at"):
            threads.drop_column(name)
