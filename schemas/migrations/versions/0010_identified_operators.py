# SPDX-License-Identifier: Apache-2.0
"""The means by which the operator of a decision on a quarantined message was identified."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("quarantine", sa.Column("decided_identified_by", sa.String(length=40), nullable=True))
    op.add_column("quarantine", sa.Column("decided_account", sa.String(length=100), nullable=True))
