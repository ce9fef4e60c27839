# SPDX-License-Identifier: Apache-2.0
"""Rotation of a station's key: the previous key and the end of its validity, and the age of the present key."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("stations", sa.Column("key_since", sa.DateTime(timezone=True), nullable=True))
    op.add_column("stations", sa.Column("previous_key", sa.String(length=200), nullable=True))
    op.add_column("stations", sa.Column("previous_key_until", sa.DateTime(timezone=True), nullable=True))
