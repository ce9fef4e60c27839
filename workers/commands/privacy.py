# SPDX-License-Identifier: Apache-2.0
"""`bookdrop privacy`: what is kept of readers, and letting go of it."""

import json
from dataclasses import asdict

import click


@click.group("privacy")
def privacy_group() -> None:
    """Let go of what is kept of readers."""


@privacy_group.command("purge")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def purge_command(dry_run: bool, as_json: bool) -> None:
    """Delete the links to readers that nothing needs any more.

    These are links kept aside for an undo whose window is over; links of discharged loans whose fee or claim is
    settled; links of closed requests with nothing open. Housekeeping does the same every minute; this does it now.
    Loans that are open, and fees and claims that are not settled, keep theirs.

    \b
    bookdrop privacy purge --dry-run
    """
    from datetime import UTC, datetime

    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.orm import Session

    from schemas.database import open_engine
    from tasks.privacy.purge import purge
    from workers.settings import WorkerSettings

    engine = open_engine(WorkerSettings.load().database_url)
    try:
        with Session(engine) as session, session.begin():
            purged = purge(session, datetime.now(UTC), dry_run=dry_run)
    except SQLAlchemyError as error:
        words = str(getattr(error, "orig", None) or error).strip()
        raise click.ClickException(f"Nothing was purged: {words}\n'bookdrop doctor' says more.") from None
    finally:
        engine.dispose()
    if as_json:
        click.echo(json.dumps({**asdict(purged), "dry_run": dry_run}))
        return
    verb = "would go" if dry_run else "went"
    click.echo(f"Links to readers that {verb}: {purged.total}.")
    for what, number in (
        ("kept aside for an undo that is over", purged.set_aside),
        ("of loans that have ended", purged.loans),
        ("of requests that are closed", purged.requests),
    ):
        click.echo(f"  {number:>6}  {what}")
