# SPDX-License-Identifier: Apache-2.0
"""Slips that are void because their Return was undone."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("print_jobs", sa.Column("voided_at", sa.DateTime(timezone=True), nullable=True))
