# SPDX-License-Identifier: Apache-2.0
"""Time of a heartbeat by the station's clock: of two that workers receive at once, the later one is kept."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("sightings", sa.Column("said_at", sa.DateTime(timezone=True), nullable=True))
