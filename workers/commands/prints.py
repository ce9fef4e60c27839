# SPDX-License-Identifier: Apache-2.0
"""`bookdrop prints`: what became of each slip, and what a person decides about it."""

import getpass
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from workers.commands.sessions import deciding, reading

if TYPE_CHECKING:
    from tasks.context import Context
    from tasks.operator import Operator
    from tasks.printing.actions import Done

actor_option = click.option("--actor", help="Who decides (default: your login name); stands in the history.")
reason_option = click.option("--reason", help="Why; stands in the history.")
json_option = click.option("--json", "as_json", is_flag=True, help="For scripts.")


class SlipId(click.ParamType[UUID]):
    """A slip's id, as lists show it or as its code says it."""

    name = "slip"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> UUID:
        """Read it."""
        if isinstance(value, UUID):
            return value
        try:
            return UUID(str(value).strip().removeprefix("BD:"))
        except ValueError:
            self.fail(f"{value} is no slip's id. 'bookdrop prints list' shows them.", param, ctx)


@click.group("prints")
def prints_group() -> None:
    """Look at slips, and decide what becomes of them.

    \b
    held, failed_safe   waits; goes out by itself when its printer is back
    unknown             may be at the printer: look there, then 'printed' or 'reprint'
    expired             waited too long and is not sent any more: 'reprint' if the book is still here
    """  # fmt: skip


@prints_group.command("list")
@click.option("--failed", is_flag=True, help="Those that failed and are tried again.")
@click.option("--held", is_flag=True, help="Those that wait for a printer that is away or on hold.")
@click.option("--unknown", is_flag=True, help="Those that nobody knows of: a person must look.")
@click.option("--expired", is_flag=True, help="Those that waited too long.")
@click.option("--branch", metavar="CODE", help="Only this branch's.")
@click.option("--printer", metavar="CODE", help="Only this printer's.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000), help="How many at most.")
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
    """List slips: the newest, or those in trouble, the oldest first.

    Example: bookdrop prints list --failed --held --unknown --branch main
    """
    from schemas.print_jobs import PrintState as State

    chosen = {State.FAILED_SAFE: failed, State.HELD: held, State.UNKNOWN: unknown, State.EXPIRED: expired}
    _show([state for state, wanted in chosen.items() if wanted], branch, printer, limit, as_json)


@prints_group.command("unconfirmed")
@click.option("--branch", metavar="CODE", help="Only this branch's.")
@click.option("--limit", default=200, show_default=True, type=click.IntRange(1, 10_000), help="How many at most.")
@json_option
def unconfirmed_command(branch: str | None, limit: int, as_json: bool) -> None:
    """List the slips that were sent and that nobody has scanned at packing, the oldest first."""
    from tasks.printing.queries import UNSEEN

    _show(UNSEEN, branch, None, limit, as_json)


def _show(states: Any, branch: str | None, printer: str | None, limit: int, as_json: bool) -> None:
    from tasks.printing.queries import Wanted, slips

    with reading() as connection:
        found = slips(connection, Wanted(states=states, branch=branch, printer=printer, limit=limit))
    if as_json:
        click.echo(json.dumps({"slips": found}, indent=2, ensure_ascii=False))
        return
    for each in found:
        copy = f" copy {each['copy']}" if each["copy"] > 1 else ""
        click.echo(
            f"{each['slip']}  {each['since'][:16]}  {each['branch']:<10}{each['request']:<16}{each['words']}{copy}"
        )
    if not found:
        click.echo("No slip fits.")


@prints_group.command("show")
@click.argument("slip", type=SlipId())
@json_option
def show_command(slip: UUID, as_json: bool) -> None:
    """Tell all of one slip: where it is, every try, who decided what."""
    from tasks.printing.queries import slip as story_of

    with reading() as connection:
        found = story_of(connection, slip)
    if found is None:
        raise click.ClickException(f"There is no slip {slip}. 'bookdrop prints list' shows them.")
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    click.echo(f"Slip {found['slip']}{'  COPY ' + str(found['copy']) if found['copy'] > 1 else ''}")
    click.echo(f"{found['words']}, since {found['since'][:16]}")
    click.echo(f"Request {found['request']}   {found['title']}   item {found['barcode']}   to {found['delivery_code']}")
    click.echo(
        f"Branch {found['branch']}   printer {found['printer'] or 'none'}   station {found['station'] or 'none'}"
    )
    for each in found["attempts"]:
        ended = f"{each['outcome']}{': ' + each['error'] if each['error'] else ''}" if each["outcome"] else "in hand"
        click.echo(f"  {each['began'][:19]}  tried on {each['printer'] or 'a printer that is gone'}: {ended}")
    for each in found["decisions"]:
        reason = f": {each['reason']}" if each["reason"] else ""
        click.echo(f"  {each['at'][:19]}  {each['what'].replace('_', ' ')} by {each['actor']}{reason}")
    if len(found["copies"]) > 1:
        click.echo(
            "Copies: " + ", ".join(f"{each['copy']} {each['state']} ({each['slip']})" for each in found["copies"])
        )


@prints_group.command("retry")
@click.argument("slip", type=SlipId(), required=False)
@click.option("--all-failed", is_flag=True, help="All that failed or are held, the oldest first.")
@click.option("--branch", metavar="CODE", help="With --all-failed: only this branch's.")
@click.option("--printer", metavar="CODE", help="With --all-failed: only this printer's.")
@actor_option
@reason_option
@json_option
def retry_command(
    slip: UUID | None,
    all_failed: bool,
    branch: str | None,
    printer: str | None,
    actor: str | None,
    reason: str | None,
    as_json: bool,
) -> None:
    """Try a slip again now that has not been sent; its wait is over.

    \b
    bookdrop prints retry 01a20aee-905b-70e3-bbdd-6f98a0bee5d1
    bookdrop prints retry --all-failed --printer main-slips
    """
    from tasks.printing import actions

    if (slip is None) == (not all_failed):
        raise click.UsageError("Name a slip, or say --all-failed.")
    if slip is not None:
        _decide(lambda by, here: [actions.retry(slip, by, here)], actor, reason, as_json)
        return
    _decide(lambda by, here: actions.retry_all(by, here, branch=branch, printer=printer), actor, reason, as_json)


@prints_group.command("reprint")
@click.argument("slip", type=SlipId())
@click.option("--reason", required=True, help="Why; stands in the history.")
@actor_option
@json_option
def reprint_command(slip: UUID, reason: str, actor: str | None, as_json: bool) -> None:
    """Print a slip once more; COPY 2 (or 3 ...) stands on it, for the first one may still be in a book."""
    from tasks.printing import actions

    _decide(lambda by, here: [actions.reprint(slip, by, here)], actor, reason, as_json)


@prints_group.command("printed")
@click.argument("slip", type=SlipId())
@actor_option
@reason_option
@json_option
def printed_command(slip: UUID, actor: str | None, reason: str | None, as_json: bool) -> None:
    """Say that you saw the slip on paper: it is not in doubt any more."""
    from tasks.printing import actions

    _decide(lambda by, here: [actions.mark_printed(slip, by, here)], actor, reason, as_json)


@prints_group.command("cancel")
@click.argument("slip", type=SlipId())
@actor_option
@reason_option
@json_option
def cancel_command(slip: UUID, actor: str | None, reason: str | None, as_json: bool) -> None:
    """Give up a slip that has not been sent, or that nobody knows of."""
    from tasks.printing import actions

    _decide(lambda by, here: [actions.cancel(slip, by, here)], actor, reason, as_json)


@prints_group.command("move")
@click.argument("slip", type=SlipId())
@click.option("--to", required=True, metavar="PRINTER", help="Code of the printer that is to take it.")
@actor_option
@reason_option
@json_option
def move_command(slip: UUID, to: str, actor: str | None, reason: str | None, as_json: bool) -> None:
    """Have a slip that waits printed on another printer."""
    from tasks.printing import actions

    _decide(lambda by, here: [actions.move(slip, to, by, here)], actor, reason, as_json)


def _decide(
    act: "Callable[[Operator, Context], list[Done]]", actor: str | None, reason: str | None, as_json: bool
) -> None:
    from tasks.operator import Operator
    from tasks.printing.actions import RefusedActionError

    with deciding() as here:
        try:
            done = act(Operator(actor or getpass.getuser(), reason), here)
        except RefusedActionError as error:
            raise click.ClickException(f"{error} Nothing was changed.") from None
    if as_json:
        told = [{"slip": str(each.slip), "state": each.state.value, "message": each.message} for each in done]
        click.echo(json.dumps({"slips": told}, indent=2, ensure_ascii=False))
        return
    for each in done:
        click.echo(f"{each.slip}  {each.message}")
    if not done:
        click.echo("No slip waits.")
