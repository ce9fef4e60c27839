# SPDX-License-Identifier: Apache-2.0
"""`bookdrop migrate`: bring the tables up to date."""

import click


@click.command("migrate")
@click.option("--check", is_flag=True, help="Change nothing; exit 1 when a migration is due.")
def migrate_command(check: bool) -> None:
    """Bring the database's tables up to date, while workers run. Safe to run twice and from two machines at once.

    It is one transaction: all of it, or nothing. When somebody is in the way, it gives up after some seconds, says who,
    and exits 1.
    """
    from sqlalchemy.exc import SQLAlchemyError

    from schemas.database import open_engine
    from schemas.migration import MigrationBusyError, migrate, revisions
    from workers.settings import WorkerSettings

    engine = open_engine(WorkerSettings.load().database_url, name="bookdrop-migrate")
    try:
        before, wanted = revisions(engine)
        if check:
            click.echo(f"The tables are at {before or 'nothing'}, this program wants {wanted}.")
            raise SystemExit(0 if before == wanted else 1)
        migrate(engine)
    except MigrationBusyError as error:
        raise click.ClickException(str(error)) from None
    except SQLAlchemyError as error:
        words = str(getattr(error, "orig", None) or error).strip()
        raise click.ClickException(
            f"The database could not be migrated: {words}\nNothing was changed. Check BOOKDROP_DATABASE_URL, then run it again."
        ) from None
    finally:
        engine.dispose()
    click.echo(
        f"The tables are at {wanted}." if before == wanted else f"Migrated from {before or 'nothing'} to {wanted}."
    )
