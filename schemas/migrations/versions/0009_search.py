# SPDX-License-Identifier: Apache-2.0
"""The ISBN of a request, and a full-text index over titles and authors."""

import sqlalchemy as sa
from alembic import op

from schemas.title_search import CREATE

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("requests", sa.Column("isbn", sa.String(13), nullable=True))
    op.create_index("ix_requests_isbn", "requests", ["isbn"])
    for statement in CREATE[op.get_bind().dialect.name]:
        op.execute(statement)
