# SPDX-License-Identifier: Apache-2.0
"""`bookdrop privacy`: delete links to patrons that are no longer needed."""

import json
from dataclasses import asdict

import click

from workers.commands.options import json_option


@click.group("privacy")
def privacy_group() -> None:
    """Delete stored links to patrons."""


@privacy_group.command("purge")
@click.option("--dry-run", is_flag=True, help="Show what would be deleted; change nothing.")
@json_option
def purge_command(dry_run: bool, as_json: bool) -> None:
    """Delete the links to patrons that nothing needs any more.

    Housekeeping deletes them every minute; this command deletes them now. Open loans and unsettled fees and claims keep
    their links. The deleted links are those

    \b
      stored for an undo whose window is over
      of discharged loans whose fee or claim is settled
      of closed requests with nothing open

    Example: bookdrop privacy purge --dry-run
    """
    from datetime import UTC, datetime

    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.orm import Session

    from schemas.database import open_engine
    from tasks.privacy.purge import purge
    from workers.commands.sessions import cause
    from workers.settings import WorkerSettings

    engine = open_engine(WorkerSettings.load().database_url)
    try:
        with Session(engine) as session, session.begin():
            purged = purge(session, datetime.now(UTC), dry_run=dry_run)
    except SQLAlchemyError as error:
        raise click.ClickException(
            f"Nothing was deleted: {cause(error)}\nRun 'bookdrop doctor' to find the cause."
        ) from None
    finally:
        engine.dispose()
    if as_json:
        click.echo(json.dumps({**asdict(purged), "dry_run": dry_run}))
        return
    click.echo(f"Links to patrons {'to delete' if dry_run else 'deleted'}: {purged.total}.")
    for label, number in (
        ("stored for an undo whose window is over", purged.set_aside),
        ("of discharged loans", purged.loans),
        ("of closed requests", purged.requests),
    ):
        click.echo(f"  {number:>6}  {label}")
