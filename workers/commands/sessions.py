# SPDX-License-Identifier: Apache-2.0
"""Database access of the commands: read only, or with a context for actions. Errors become messages."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tasks.context import Context

UNCHANGED = "Nothing was changed. Run 'bookdrop doctor' to find the cause."


@contextmanager
def reading() -> "Iterator[Connection]":
    """Open a read-only connection."""
    from sqlalchemy.exc import SQLAlchemyError

    from schemas.database import READ_ONLY, open_engine
    from workers.settings import WorkerSettings

    engine = open_engine(WorkerSettings.load().database_url, name="bookdrop-operations")
    try:
        with engine.connect().execution_options(**READ_ONLY) as connection:
            yield connection
    except SQLAlchemyError as error:
        raise click.ClickException(
            f"The database cannot be read: {cause(error)}\nRun 'bookdrop doctor' to find the cause."
        ) from None
    finally:
        engine.dispose()


@contextmanager
def acting() -> "Iterator[Context]":
    """Open a context for actions. They are committed to the database, and their tasks are published now or by a sweep."""
    from sqlalchemy.exc import SQLAlchemyError

    from schemas.database import open_engine
    from workers import bootstrap, logging
    from workers.publisher import BrokerPublisher
    from workers.settings import WorkerSettings

    settings = WorkerSettings.load()
    logging.configure("warning", settings.log_format)
    engine = open_engine(settings.database_url, name="bookdrop-operations", overwrite_deleted=True)
    context = bootstrap.make(settings, engine)
    try:
        yield context
    except SQLAlchemyError as error:
        raise click.ClickException(f"The database cannot be written: {cause(error)}\n{UNCHANGED}") from None
    finally:
        if isinstance(context.publisher, BrokerPublisher):
            context.publisher.close()
        engine.dispose()


def cause(error: Exception) -> str:
    """Return the driver's message in an error of SQLAlchemy."""
    return str(getattr(error, "orig", None) or error).strip()
