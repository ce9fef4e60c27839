# SPDX-License-Identifier: Apache-2.0
"""The tables as migrated are the tables as declared."""

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from schemas.migration import migrate, revisions
from schemas.models import Model


def test_migrations_make_the_declared_tables(engine):
    """On both databases nothing is left to migrate, and migrating again changes nothing."""
    migrate(engine)

    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        difference = compare_metadata(context, Model.metadata)

    assert difference == []
    current, wanted = revisions(engine)
    assert current == wanted
