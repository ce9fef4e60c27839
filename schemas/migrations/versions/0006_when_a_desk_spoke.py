# SPDX-License-Identifier: Apache-2.0
"""When a desk spoke, by its own clock: of what two workers heard of it at once, the later word stands."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("sightings", sa.Column("said_at", sa.DateTime(timezone=True), nullable=True))
