# SPDX-License-Identifier: Apache-2.0
"""The decision about a quarantined message, and the data to requeue it."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    for column in (
        sa.Column("state", sa.String(40), nullable=False, server_default="kept"),
        sa.Column("task", sa.String(200), nullable=True),
        sa.Column("envelope", sa.Text(), nullable=True),
        sa.Column("encoding", sa.String(40), nullable=False, server_default="text"),
        sa.Column("whole", sa.Boolean(), nullable=False, server_default=sa.true()),
        sa.Column("letter", sa.String(64), nullable=True),
        sa.Column("times", sa.Integer(), nullable=False, server_default="1"),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("decided_by", sa.String(200), nullable=True),
        sa.Column("decision_reason", sa.Text(), nullable=True),
        sa.Column("erased_at", sa.DateTime(timezone=True), nullable=True),
    ):
        op.add_column("quarantine", column)
    op.create_index("ix_quarantine_letter", "quarantine", ["letter"], unique=True)
    op.create_index("ix_quarantine_event_id", "quarantine", ["event_id"])
