# SPDX-License-Identifier: Apache-2.0
"""Migrations create the tables that the models declare."""

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from schemas.migration import migrate, revisions
from schemas.models import Model


def test_migrated_tables_equal_the_declared_ones(engine):
    """On both databases Alembic finds no difference to the models, and a second migration changes nothing."""
    migrate(engine)

    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        difference = compare_metadata(context, Model.metadata)
    current, newest = revisions(engine)

    assert difference == []
    assert current == newest
