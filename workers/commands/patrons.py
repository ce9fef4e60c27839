# SPDX-License-Identifier: Apache-2.0
"""`bookdrop patrons`: erase a patron."""

import json
import sys
from typing import TYPE_CHECKING, Final

import click

from workers.commands.options import json_option
from workers.commands.sessions import acting

if TYPE_CHECKING:
    from tasks.privacy.erasure import ErasureReport, PatronNeededError

TEXTS: Final = {
    "open_loan": "has an open loan",
    "open_fee": "has a loan with an open fee or claim",
    "open_request": "has an open request",
    "undo_open": "has a Return that can still be undone",
}
"""Text for each obstacle, after "The patron"."""
ELSEWHERE: Final = (
    "Stations' journals: new scans replace the last thousand. At once: delete the file of a station that holds no event.",
    "Messages on their way: replies that a station has not received expire after a week.",
    "The broker's files: Redis and Valkey keep acknowledged messages until BGREWRITEAOF, which you may run at once.",
    "Backups: each contains the patron until it is deleted. After a restore run this command again.",
    "Printed slips, spool folders of other machines, and exported files.",
    "Your library system: its next export brings the patron back if it still contains one.",
    "The history of your shell, if you typed the number: write - in its place to read it from standard input.",
)
"""Places that the command does not reach."""


@click.group("patrons")
def patrons_group() -> None:
    """Erase the data of a patron."""


@patrons_group.command("forget")
@click.argument("number")
@click.option("--dry-run", is_flag=True, help="Show what would be erased; change nothing.")
@click.option("--yes", is_flag=True, help="Erase without a question.")
@json_option
def forget_command(number: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Erase the patron with the card NUMBER; - reads it from standard input.

    Deletes the patron's row and its links from loans and requests, and erases each stored text that names the number,
    or the name if it has at least two words: history, replies, quarantined messages, slips and their files. Loans and
    requests stay, without a patron. A number that has no row any more is erased from texts as well.

    Refused while the patron has an open loan, fee, claim or request, or a Return that can be undone. The output names
    the tables, and the places that no command reaches, for example backups.

    \b
    Exit codes: 0 erased, or nothing was stored; 1 refused or not confirmed

    Example: bookdrop patrons forget - --dry-run
    """
    from tasks.privacy.erasure import PatronNeededError, erase_patron

    if as_json and not (dry_run or yes):
        raise click.UsageError("--json requires --yes or --dry-run.")
    wanted = (sys.stdin.readline() if number == "-" else number).strip()
    if not wanted:
        raise click.UsageError("The number is empty.")
    with acting() as context:
        try:
            report = erase_patron(wanted, context, dry_run=True)
            if not dry_run:
                if not yes:
                    _show(report, "To erase")
                    click.confirm("Erase it? This cannot be undone.", abort=True)
                report = erase_patron(wanted, context)
        except PatronNeededError as error:
            _refuse(error, as_json=as_json)
    if as_json:
        content = {"dry_run": dry_run, "rows": dict(report.rows), "texts_searched": report.texts_searched}
        click.echo(json.dumps({**content, "elsewhere": ELSEWHERE}, indent=2))
        return
    _show(report, "To erase" if dry_run else "Erased")
    click.echo("Not reached by this command:")
    for place in ELSEWHERE:
        click.echo(f"  - {place}")


def _show(report: "ErasureReport", heading: str) -> None:
    click.echo(f"{heading}: {report.total} rows and files." if report.total else "Nothing stored names this patron.")
    for name, number in report.rows.items():
        if number:
            click.echo(f"  {number:>6}  {name}")
    if not report.texts_searched:
        click.echo("Texts were not searched: a number of fewer than 4 characters is in many that name no patron.")


def _refuse(error: "PatronNeededError", *, as_json: bool) -> None:
    if as_json:
        refused = [{"reason": each.obstacle.value, "requests": each.requests} for each in error.needed]
        click.echo(json.dumps({"refused": refused}, indent=2))
    else:
        for each in error.needed:
            click.echo(f"The patron {TEXTS[each.obstacle.value]}: {', '.join(each.requests)}.", err=True)
        click.echo(
            "Nothing was erased. Return the items, close the requests, settle the fees; then run this again.", err=True
        )
    raise SystemExit(1)
