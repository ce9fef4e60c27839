# SPDX-License-Identifier: Apache-2.0
"""How commands reach the database: to read, or to decide something; errors in words."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tasks.context import Context


@contextmanager
def reading() -> "Iterator[Connection]":
    """A connection that only reads."""
    from sqlalchemy.exc import SQLAlchemyError

    from schemas.database import READ_ONLY, open_engine
    from workers.settings import WorkerSettings

    engine = open_engine(WorkerSettings.load().database_url, name="bookdrop-operations")
    try:
        with engine.connect().execution_options(**READ_ONLY) as connection:
            yield connection
    except SQLAlchemyError as error:
        words = str(getattr(error, "orig", None) or error).strip()
        raise click.ClickException(f"The database cannot be read: {words}\n'bookdrop doctor' says more.") from None
    finally:
        engine.dispose()


@contextmanager
def deciding() -> "Iterator[Context]":
    """What a decision needs: it is kept in the database, and its orders are published now or by housekeeping."""
    from sqlalchemy.exc import SQLAlchemyError

    from schemas.database import open_engine
    from workers import bootstrap, logging
    from workers.publisher import BrokerPublisher
    from workers.settings import WorkerSettings

    settings = WorkerSettings.load()
    logging.configure("warning", settings.log_format)
    engine = open_engine(settings.database_url, name="bookdrop-operations")
    here = bootstrap.make(settings, engine)
    try:
        yield here
    except SQLAlchemyError as error:
        words = str(getattr(error, "orig", None) or error).strip()
        raise click.ClickException(
            f"The database cannot be written: {words}\nNothing was changed. 'bookdrop doctor' says more."
        ) from None
    finally:
        if isinstance(here.publisher, BrokerPublisher):
            here.publisher.close()
        engine.dispose()
