# SPDX-License-Identifier: Apache-2.0
"""The branch's own courier code, as slips show it, and an index for the short form of a slip's code."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

LAST_DIGITS = {"postgresql": '"right"(id::text, 12)', "sqlite": "substr(id, -12)"}


def upgrade() -> None:
    """Apply."""
    op.add_column("branches", sa.Column("delivery_code", sa.String(40), nullable=True))
    op.execute(f"CREATE INDEX ix_print_jobs_last_digits ON print_jobs ({LAST_DIGITS[op.get_bind().dialect.name]})")
