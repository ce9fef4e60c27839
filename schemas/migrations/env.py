# SPDX-License-Identifier: Apache-2.0
"""Entry point for Alembic: runs migrations on the connection from `schemas.migration.migrate`."""

from alembic import context

from schemas.models import Model

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("Migrations run through 'bookdrop migrate', which opens the database and takes the lock.")
context.configure(
    connection=connection,
    target_metadata=Model.metadata,
    render_as_batch=connection.dialect.name == "sqlite",
    transaction_per_migration=False,
    compare_type=True,
)
context.run_migrations()
