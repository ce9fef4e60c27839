# SPDX-License-Identifier: Apache-2.0
"""`bookdrop prints`: list and show print jobs. `print_actions.py` has the commands that change them."""

from typing import Any
from uuid import UUID

import click

from workers.commands import print_actions
from workers.commands.json_output import to_json
from workers.commands.moments import format_moment
from workers.commands.options import json_option
from workers.commands.sessions import reading
from workers.commands.slip_id import SlipId


@click.group("prints")
def prints_group() -> None:
    """Show print jobs, and act on them.

    \b
    held, failed_safe   waits; sent automatically when its printer is available
    unknown             may be printed: look at the printer, then 'printed' or 'reprint'
    expired             waited too long and is not sent any more: 'reprint' if the book is still here
    """  # fmt: skip


@prints_group.command("list")
@click.option("--failed", is_flag=True, help="Only slips whose last attempt failed; the next follows automatically.")
@click.option("--held", is_flag=True, help="Only slips that wait for a printer that is unavailable or on hold.")
@click.option("--unknown", is_flag=True, help="Only slips that may be printed or not: an operator must look.")
@click.option("--expired", is_flag=True, help="Only slips that waited too long.")
@click.option("--branch", metavar="CODE", help="Only slips of this branch.")
@click.option("--printer", metavar="CODE", help="Only slips of this printer.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000), help="Maximum number.")
@json_option
def list_command(
    failed: bool,
    held: bool,
    unknown: bool,
    expired: bool,
    branch: str | None,
    printer: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List the newest slips; with a state, the slips in that state, oldest first.

    Example: bookdrop prints list --failed --held --unknown --branch main
    """
    from schemas.print_jobs import PrintState as State

    chosen = {State.FAILED_SAFE: failed, State.HELD: held, State.UNKNOWN: unknown, State.EXPIRED: expired}
    _show([state for state, is_chosen in chosen.items() if is_chosen], branch, printer, limit, as_json)


@prints_group.command("unconfirmed")
@click.option("--branch", metavar="CODE", help="Only slips of this branch.")
@click.option("--limit", default=200, show_default=True, type=click.IntRange(1, 10_000), help="Maximum number.")
@json_option
def unconfirmed_command(branch: str | None, limit: int, as_json: bool) -> None:
    """List the slips that were sent and not scanned at packing, oldest first."""
    from tasks.printing.queries import UNCONFIRMED

    _show(UNCONFIRMED, branch, None, limit, as_json)


def _show(states: Any, branch: str | None, printer: str | None, limit: int, as_json: bool) -> None:
    from tasks.printing.queries import SlipFilter, slips

    with reading() as connection:
        found = slips(connection, SlipFilter(states=states, branch=branch, printer=printer, limit=limit))
    if as_json:
        click.echo(to_json({"slips": found}))
        return
    for row in found:
        copy = f" copy {row['copy']}" if row["copy"] > 1 else ""
        click.echo(
            f"{row['slip']}  {format_moment(row['since'])}  {row['branch']:<10}{row['request']:<16}{row['words']}{copy}"
        )
    if not found:
        click.echo("No slip matches.")


@prints_group.command("show")
@click.argument("slip", type=SlipId())
@json_option
def show_command(slip: UUID, as_json: bool) -> None:
    """Show a slip with its state, attempts, actions and copies."""
    from schemas.slip_codes import short_code
    from tasks.operator import named_person
    from tasks.printing.queries import slip as read_slip

    with reading() as connection:
        found = read_slip(connection, slip)
    if found is None:
        raise click.ClickException(f"There is no slip {slip}. Run 'bookdrop prints list' to see all.")
    if as_json:
        click.echo(to_json(found))
        return
    copy_number = f"  COPY {found['copy']}" if found["copy"] > 1 else ""
    click.echo(f"Slip {found['slip']}  {short_code(slip)}{copy_number}")
    click.echo(f"{found['words']}, since {format_moment(found['since'])}")
    click.echo(f"Request {found['request']}   {found['title']}   item {found['barcode']}   to {found['delivery_code']}")
    click.echo(
        f"Branch {found['branch']}   printer {found['printer'] or 'none'}   station {found['station'] or 'none'}"
    )
    for attempt in found["attempts"]:
        error = f": {attempt['error']}" if attempt["error"] else ""
        result = f"{attempt['outcome']}{error}" if attempt["outcome"] else "in progress"
        click.echo(
            f"  {format_moment(attempt['began'], seconds=True)}  attempt on {attempt['printer'] or 'a deleted printer'}: {result}"
        )
    for decision in found["decisions"]:
        reason = f": {decision['reason']}" if decision["reason"] else ""
        who = named_person(decision["actor"], decision["identified_by"], decision["account"])
        click.echo(
            f"  {format_moment(decision['at'], seconds=True)}  {decision['what'].replace('_', ' ')} by {who}{reason}"
        )
    if len(found["copies"]) > 1:
        click.echo(
            "Copies: " + ", ".join(f"{copy['copy']} {copy['state']} ({copy['slip']})" for copy in found["copies"])
        )


for command in (
    print_actions.retry_command,
    print_actions.reprint_command,
    print_actions.printed_command,
    print_actions.cancel_command,
    print_actions.move_command,
):
    prints_group.add_command(command)
