# SPDX-License-Identifier: Apache-2.0
"""The keyed hash of an unknown barcode, and the progress of the erasure of expired content."""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

KINDS = ("unknown_barcodes", "replies", "history_notes", "slip_notes", "damage_notes", "quarantine")


def upgrade() -> None:
    """Apply."""
    op.add_column("inbox", sa.Column("barcode_digest", sa.String(length=64), nullable=True))
    progress = op.create_table(
        "retention",
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("position", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("complete_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("kind", name=op.f("pk_retention")),
    )
    now = datetime.now(UTC)
    op.bulk_insert(progress, [{"kind": kind, "position": 0, "complete_at": now} for kind in KINDS])
