# SPDX-License-Identifier: Apache-2.0
"""`bookdrop migrate`: migrate the database schema."""

import click


@click.command("migrate")
@click.option("--check", is_flag=True, help="Change nothing; exit 1 if a migration is due.")
def migrate_command(check: bool) -> None:
    """Migrate the database schema to this program's version, while workers run. Safe to run twice and concurrently.

    The migration is one transaction. If another session holds a lock that it needs, it gives up after some seconds,
    shows that session, and exits 1.
    """
    from sqlalchemy.exc import SQLAlchemyError

    from schemas.database import open_engine
    from schemas.migration import MigrationBusyError, migrate, revisions
    from workers.commands.sessions import cause
    from workers.settings import WorkerSettings

    engine = open_engine(WorkerSettings.load().database_url, name="bookdrop-migrate")
    try:
        before, wanted = revisions(engine)
        if check:
            click.echo(f"The schema is at {before or 'no version'}, this program needs {wanted}.")
            raise SystemExit(0 if before == wanted else 1)
        migrate(engine)
    except MigrationBusyError as error:
        raise click.ClickException(str(error)) from None
    except SQLAlchemyError as error:
        raise click.ClickException(
            f"The database could not be migrated: {cause(error)}\n"
            "Nothing was changed. Check BOOKDROP_DATABASE_URL, then run this command again."
        ) from None
    finally:
        engine.dispose()
    click.echo(
        f"The schema is at {wanted}." if before == wanted else f"Migrated from {before or 'no version'} to {wanted}."
    )
