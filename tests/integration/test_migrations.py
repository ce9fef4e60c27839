# SPDX-License-Identifier: Apache-2.0
"""Migrations create the tables that the models declare."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select

from schemas.migration import migrate, revisions
from schemas.models import Model, PrintJob
from tasks.printing.slip_lookup import _ends_with

SEARCH_INDEX = {"ix_requests_words", "request_words"} | {
    f"request_words_{part}" for part in ("data", "idx", "content", "docsize", "config")
}
"""The index of `schemas/title_search.py`, which no model declares."""
EXPRESSION_INDEX = "ix_print_jobs_last_digits"
"""The index of `tasks/printing/slip_lookup.py`: SQLAlchemy does not reflect it on SQLite."""


@pytest.mark.filterwarnings(f"ignore:Skipped unsupported reflection of expression-based index {EXPRESSION_INDEX}")
def test_migrated_tables_equal_the_declared_ones(engine):
    """On both databases Alembic finds no difference to the models, and a second migration changes nothing."""
    migrate(engine)

    with engine.connect() as connection:
        opts = {
            "compare_type": True,
            "include_object": lambda _object, name, *_: name not in {*SEARCH_INDEX, EXPRESSION_INDEX},
        }
        context = MigrationContext.configure(connection, opts=opts)
        difference = compare_metadata(context, Model.metadata)
    current, newest = revisions(engine)

    assert difference == []
    assert current == newest


def test_lookup_of_a_short_form_uses_its_index(engine):
    """The condition of a short form is the expression of the index, so the lookup does not read every print job."""
    migrate(engine)

    with engine.connect() as connection:
        query = str(
            select(PrintJob.id)
            .where(_ends_with(connection, "0" * 12, 0))
            .compile(engine, compile_kwargs={"literal_binds": True})
        )
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("SET enable_seqscan = off")
            plan = connection.exec_driver_sql(f"EXPLAIN {query}").all()
        else:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}").all()

    assert EXPRESSION_INDEX in str(plan)
