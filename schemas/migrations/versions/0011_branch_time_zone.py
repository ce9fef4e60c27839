# SPDX-License-Identifier: Apache-2.0
"""Time zone of a branch, in which its due dates end. Without one it is that of the machine of the import."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("branches", sa.Column("timezone", sa.String(64), nullable=True))
