# SPDX-License-Identifier: Apache-2.0
"""Size and digest of a quarantined message: its record states them after its content is erased."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("quarantine", sa.Column("size", sa.Integer(), nullable=True))
    op.add_column("quarantine", sa.Column("digest", sa.String(length=64), nullable=True))
    quarantine = sa.table(
        "quarantine", sa.column("size", sa.Integer), sa.column("body", sa.Text), sa.column("envelope", sa.Text)
    )
    size = sa.func.length(quarantine.c.body) + sa.func.coalesce(sa.func.length(quarantine.c.envelope), 0)
    op.execute(quarantine.update().values(size=size))
    held = sa.text("erased_at IS NULL")
    op.create_index(
        "ix_quarantine_content", "quarantine", ["id", "size"], postgresql_where=held, sqlite_where=held
    )
