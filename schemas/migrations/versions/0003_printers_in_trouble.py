# SPDX-License-Identifier: Apache-2.0
"""Failures of a printer: their number, the end of the pause, the cause."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("printers", sa.Column("failures", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("printers", sa.Column("retry_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("printers", sa.Column("trouble", sa.Text(), nullable=True))
    op.create_index("ix_print_jobs_printer_id_state", "print_jobs", ["printer_id", "state"])
