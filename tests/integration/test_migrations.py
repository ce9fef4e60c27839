# SPDX-License-Identifier: Apache-2.0
"""Migrations create the tables that the models declare."""

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from schemas.migration import migrate, revisions
from schemas.models import Model

SEARCH_INDEX = {"ix_requests_words", "request_words"} | {
    f"request_words_{part}" for part in ("data", "idx", "content", "docsize", "config")
}
"""The index of `schemas/title_search.py`, which no model declares."""


def test_migrated_tables_equal_the_declared_ones(engine):
    """On both databases Alembic finds no difference to the models, and a second migration changes nothing."""
    migrate(engine)

    with engine.connect() as connection:
        opts = {"compare_type": True, "include_object": lambda _object, name, *_: name not in SEARCH_INDEX}
        context = MigrationContext.configure(connection, opts=opts)
        difference = compare_metadata(context, Model.metadata)
    current, newest = revisions(engine)

    assert difference == []
    assert current == newest
