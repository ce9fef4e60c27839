# SPDX-License-Identifier: Apache-2.0
"""The commands of `bookdrop prints` that change one or several print jobs."""

from collections.abc import Callable
from typing import TYPE_CHECKING
from uuid import UUID

import click

from workers.commands.json_output import to_json
from workers.commands.options import actor_option, command_operator, json_option
from workers.commands.print_selection import SlipSelection, act_on_all, done_as_json, selection_options
from workers.commands.sessions import acting
from workers.commands.slip_id import SlipId

if TYPE_CHECKING:
    from tasks.context import Context
    from tasks.operator import Operator
    from tasks.printing.actions import Done

reason_option = click.option("--reason", help="Reason; recorded in the history.")


@click.command("retry")
@click.argument("slip", type=SlipId(), required=False)
@click.option("--all-failed", is_flag=True, help="All slips that failed or are held, oldest first; at most 1000.")
@click.option("--branch", metavar="CODE", help="With --all-failed: only slips of this branch.")
@click.option("--printer", metavar="CODE", help="With --all-failed: only slips of this printer.")
@click.option("--dry-run", is_flag=True, help="With --all-failed: show their number and the oldest; change nothing.")
@click.option(
    "--expect", metavar="COUNT", type=click.IntRange(0), help="With --all-failed: act only if exactly so many match."
)
@actor_option
@reason_option
@json_option
def retry_command(
    slip: UUID | None,
    all_failed: bool,
    branch: str | None,
    printer: str | None,
    dry_run: bool,
    expect: int | None,
    actor: str | None,
    reason: str | None,
    as_json: bool,
) -> None:
    """Retry a slip that was not sent: its printer is tried now, without its backoff, the oldest slip of its line first.

    Refused while the printer is on hold and has no fallback: resume the printer, or move the slip.

    \b
    bookdrop prints retry 01a20aee-905b-70e3-bbdd-6f98a0bee5d1
    bookdrop prints retry --all-failed --printer main-slips
    """
    from tasks.printing import actions

    if (slip is None) == (not all_failed):
        raise click.UsageError("Give either the id of a slip or --all-failed.")
    if slip is not None and (branch or printer or dry_run or expect is not None):
        raise click.UsageError("The options that select or count slips require --all-failed.")
    if slip is not None:
        _act(lambda operator, context: actions.retry(slip, operator, context), actor, reason, as_json)
        return
    selection = SlipSelection(failed=True, held=True, branch=branch, printer=printer, dry_run=dry_run, expect=expect)
    act_on_all("retry", selection, actor=actor, reason=reason, as_json=as_json)


@click.command("reprint")
@click.argument("slip", type=SlipId())
@click.option("--reason", required=True, help="Reason; recorded in the history.")
@actor_option
@json_option
def reprint_command(slip: UUID, reason: str, actor: str | None, as_json: bool) -> None:
    """Print a slip once more, marked COPY 2 (or 3 ...), because the first one may still be in a book."""
    from tasks.printing import actions

    _act(lambda operator, context: actions.reprint(slip, operator, context), actor, reason, as_json)


@click.command("printed")
@click.argument("slip", type=SlipId())
@actor_option
@reason_option
@json_option
def printed_command(slip: UUID, actor: str | None, reason: str | None, as_json: bool) -> None:
    """Record that you saw the slip on paper. Its state becomes done."""
    from tasks.printing import actions

    _act(lambda operator, context: actions.mark_printed(slip, operator, context), actor, reason, as_json)


@click.command("cancel")
@click.argument("slip", type=SlipId(), required=False)
@selection_options
@actor_option
@reason_option
@json_option
def cancel_command(
    slip: UUID | None, selection: SlipSelection, actor: str | None, reason: str | None, as_json: bool
) -> None:
    """Cancel a slip that was not sent, or whose state is unknown; or all such slips that match.

    Exit code 1: nothing was changed, for example because another number of slips matches than --expect.

    \b
    bookdrop prints cancel 01a20aee-905b-70e3-bbdd-6f98a0bee5d1
    bookdrop prints cancel --all --held --printer main-slips --dry-run
    bookdrop prints cancel --all --held --printer main-slips --expect 12 --reason "written by hand"
    """
    from tasks.printing import actions

    selection.require_count(slip)
    if slip is not None:
        _act(lambda operator, context: actions.cancel(slip, operator, context), actor, reason, as_json)
        return
    act_on_all("cancel", selection, actor=actor, reason=reason, as_json=as_json)


@click.command("move")
@click.argument("slip", type=SlipId(), required=False)
@click.option("--to", required=True, metavar="PRINTER", help="Code of the new printer.")
@selection_options
@actor_option
@reason_option
@json_option
def move_command(
    slip: UUID | None, to: str, selection: SlipSelection, actor: str | None, reason: str | None, as_json: bool
) -> None:
    """Move a waiting slip to another printer; or all waiting slips that match.

    Exit code 1: nothing was changed, for example because another number of slips matches than --expect.

    \b
    bookdrop prints move 01a20aee-905b-70e3-bbdd-6f98a0bee5d1 --to north-slips
    bookdrop prints move --all --printer main-slips --to north-slips --dry-run
    bookdrop prints move --all --printer main-slips --to north-slips --expect 40
    """
    from tasks.printing import actions

    selection.require_count(slip)
    if slip is not None:
        _act(lambda operator, context: actions.move(slip, to, operator, context), actor, reason, as_json)
        return
    act_on_all("move", selection, actor=actor, reason=reason, as_json=as_json, to=to)


def _act(action: "Callable[[Operator, Context], Done]", actor: str | None, reason: str | None, as_json: bool) -> None:
    from tasks.printing.actions import RefusedActionError

    with acting() as context:
        try:
            done = action(command_operator(actor, reason), context)
        except RefusedActionError as error:
            raise click.ClickException(f"{error} Nothing was changed.") from None
    click.echo(to_json({"slips": [done_as_json(done)]}) if as_json else f"{done.slip}  {done.message}")
