# SPDX-License-Identifier: Apache-2.0
"""`bookdrop prints`: list and show print jobs, and act on one or several of them."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from workers.commands.json_output import to_json
from workers.commands.moments import format_moment
from workers.commands.options import actor_option, command_operator, json_option
from workers.commands.sessions import acting, reading

if TYPE_CHECKING:
    from tasks.context import Context
    from tasks.operator import Operator
    from tasks.printing.actions import Done
    from tasks.printing.batch import BatchAction
    from tasks.printing.queries import SlipFilter

reason_option = click.option("--reason", help="Reason; recorded in the history.")
branch_option = click.option("--branch", metavar="CODE", help="Only slips of this branch.")


_SAMPLE = 10
"""Slips that a dry run shows."""


def batch_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that select several slips and count them first."""
    for option in (
        click.option(
            "--expect", metavar="COUNT", type=click.IntRange(0), help="Act only if exactly so many slips match."
        ),
        click.option(
            "--dry-run", is_flag=True, help="Show the number of matching slips and the oldest; change nothing."
        ),
        click.option("--printer", metavar="CODE", help="With --all: only slips of this printer."),
        click.option("--branch", metavar="CODE", help="With --all: only slips of this branch."),
        click.option("--unknown", is_flag=True, help="With --all: only slips whose result is unknown."),
        click.option("--held", is_flag=True, help="With --all: only slips that are held."),
        click.option("--failed", is_flag=True, help="With --all: only slips whose last attempt failed."),
        click.option("--all", "everything", is_flag=True, help="All slips that match; with --dry-run or --expect."),
    ):
        command = option(command)
    return command


class SlipId(click.ParamType[UUID]):
    """The id of a print job: as lists print it, the slip's code, or the last digits or letters of either."""

    name = "slip"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> UUID:
        """Parse the id; look a short form up in the database."""
        from schemas.slip_codes import DIGITS, parse_typed, short_code
        from tasks.printing.slip_lookup import find_slips

        if isinstance(value, UUID):
            return value
        meanings = parse_typed(str(value))
        if not meanings:
            self.fail(
                f"{value} is not the id or the code of a slip. Run 'bookdrop prints list' to see all.", param, ctx
            )
        if all(len(digits) == DIGITS for digits in meanings) and len(meanings) == 1:
            return UUID("".join(meanings))
        with reading() as connection:
            found = find_slips(connection, meanings)
        if len(found) == 1:
            return found[0].job_id
        if not found:
            raise click.ClickException(f"There is no slip {value}. Run 'bookdrop prints list' to see all.")
        candidates = "\n".join(
            f"  {each.job_id}  {short_code(each.job_id)}  {each.request}  item {each.barcode}" for each in found
        )
        raise click.ClickException(
            f"{value} is the end of several slips' codes. Type more of it. Nothing was changed.\n{candidates}"
        )


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
@branch_option
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
@branch_option
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


@prints_group.command("retry")
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
    from schemas.print_jobs import PrintState as State
    from tasks.printing import actions
    from tasks.printing.queries import SlipFilter

    if (slip is None) == (not all_failed):
        raise click.UsageError("Give either the id of a slip or --all-failed.")
    if slip is not None:
        _act(lambda operator, context: [actions.retry(slip, operator, context)], actor, reason, as_json)
        return
    matching = SlipFilter(states=(State.FAILED_SAFE, State.HELD), branch=branch, printer=printer)
    _act_on_all("retry", matching, dry_run=dry_run, expect=expect, actor=actor, reason=reason, as_json=as_json)


@prints_group.command("reprint")
@click.argument("slip", type=SlipId())
@click.option("--reason", required=True, help="Reason; recorded in the history.")
@actor_option
@json_option
def reprint_command(slip: UUID, reason: str, actor: str | None, as_json: bool) -> None:
    """Print a slip once more, marked COPY 2 (or 3 ...), because the first one may still be in a book."""
    from tasks.printing import actions

    _act(lambda operator, context: [actions.reprint(slip, operator, context)], actor, reason, as_json)


@prints_group.command("printed")
@click.argument("slip", type=SlipId())
@actor_option
@reason_option
@json_option
def printed_command(slip: UUID, actor: str | None, reason: str | None, as_json: bool) -> None:
    """Record that you saw the slip on paper. Its state becomes done."""
    from tasks.printing import actions

    _act(lambda operator, context: [actions.mark_printed(slip, operator, context)], actor, reason, as_json)


@prints_group.command("cancel")
@click.argument("slip", type=SlipId(), required=False)
@batch_options
@actor_option
@reason_option
@json_option
def cancel_command(
    slip: UUID | None,
    everything: bool,
    failed: bool,
    held: bool,
    unknown: bool,
    branch: str | None,
    printer: str | None,
    dry_run: bool,
    expect: int | None,
    actor: str | None,
    reason: str | None,
    as_json: bool,
) -> None:
    """Cancel a slip that was not sent, or whose state is unknown; or all such slips that match.

    Exit code 1: nothing was changed, for example because another number of slips matches than --expect.

    \b
    bookdrop prints cancel 01a20aee-905b-70e3-bbdd-6f98a0bee5d1
    bookdrop prints cancel --all --held --printer main-slips --dry-run
    bookdrop prints cancel --all --held --printer main-slips --expect 12 --reason "written by hand"
    """
    from tasks.printing import actions

    matching = _matching(slip, everything, (failed, held, unknown), branch, printer, dry_run=dry_run, expect=expect)
    if slip is not None:
        _act(lambda operator, context: [actions.cancel(slip, operator, context)], actor, reason, as_json)
        return
    _act_on_all("cancel", matching, dry_run=dry_run, expect=expect, actor=actor, reason=reason, as_json=as_json)


@prints_group.command("move")
@click.argument("slip", type=SlipId(), required=False)
@click.option("--to", required=True, metavar="PRINTER", help="Code of the new printer.")
@batch_options
@actor_option
@reason_option
@json_option
def move_command(
    slip: UUID | None,
    to: str,
    everything: bool,
    failed: bool,
    held: bool,
    unknown: bool,
    branch: str | None,
    printer: str | None,
    dry_run: bool,
    expect: int | None,
    actor: str | None,
    reason: str | None,
    as_json: bool,
) -> None:
    """Move a waiting slip to another printer; or all waiting slips that match.

    Exit code 1: nothing was changed, for example because another number of slips matches than --expect.

    \b
    bookdrop prints move 01a20aee-905b-70e3-bbdd-6f98a0bee5d1 --to north-slips
    bookdrop prints move --all --printer main-slips --to north-slips --dry-run
    bookdrop prints move --all --printer main-slips --to north-slips --expect 40
    """
    from tasks.printing import actions

    matching = _matching(slip, everything, (failed, held, unknown), branch, printer, dry_run=dry_run, expect=expect)
    if slip is not None:
        _act(lambda operator, context: [actions.move(slip, to, operator, context)], actor, reason, as_json)
        return
    _act_on_all("move", matching, dry_run=dry_run, expect=expect, actor=actor, reason=reason, as_json=as_json, to=to)


def _matching(
    slip: UUID | None,
    everything: bool,
    states: tuple[bool, bool, bool],
    branch: str | None,
    printer: str | None,
    *,
    dry_run: bool,
    expect: int | None,
) -> "SlipFilter":
    """Return the filter of a command that acts on one slip or on all that match. Raises `click.UsageError`."""
    from schemas.print_jobs import PrintState as State
    from tasks.printing.queries import SlipFilter

    if (slip is None) == (not everything):
        raise click.UsageError("Give either the id of a slip or --all.")
    if slip is not None and (any(states) or branch or printer or dry_run or expect is not None):
        raise click.UsageError("The options that select or count slips require --all.")
    if everything and not dry_run and expect is None:
        raise click.UsageError("Count them first: --all requires --dry-run or --expect COUNT.")
    chosen = zip((State.FAILED_SAFE, State.HELD, State.UNKNOWN), states, strict=True)
    return SlipFilter(states=[state for state, is_chosen in chosen if is_chosen], branch=branch, printer=printer)


def _act_on_all(
    action: "BatchAction",
    matching: "SlipFilter",
    *,
    dry_run: bool,
    expect: int | None,
    actor: str | None,
    reason: str | None,
    as_json: bool,
    to: str = "",
) -> None:
    """Perform the action on all slips that match, if their number is the expected one."""
    from tasks.printing import batch

    with reading() as connection:
        selection = batch.select_matching(connection, action, matching)
    if dry_run:
        _show_selection(selection, as_json)
        return
    if expect is not None and expect != selection.total:
        raise click.ClickException(f"{selection.total} slips match, not {expect}. Nothing was changed.")
    with acting() as context:
        result = batch.perform(action, selection.ids, command_operator(actor, reason), context, to=to)
    left = selection.left
    if as_json:
        report = {
            "slips": [_as_json(each) for each in result.done],
            "refused": [{"slip": str(each.slip), "message": each.message} for each in result.refused],
            "left": left,
        }
        click.echo(to_json(report))
    else:
        for done in result.done:
            click.echo(f"{done.slip}  {done.message}")
        for refused in result.refused:
            click.echo(f"{refused.slip}  not changed: {refused.message}", err=True)
        if left:
            click.echo(f"{left} further slips match. Repeat the command for the next ones.", err=True)
        if not selection.ids:
            click.echo("No slip waits." if action == "retry" else "No slip matches.")
    if result.refused and not result.done:
        raise SystemExit(1)


def _show_selection(selection: Any, as_json: bool) -> None:
    from tasks.printing.queries import SlipFilter, slips

    with reading() as connection:
        sample = slips(connection, SlipFilter(ids=selection.ids[:_SAMPLE], limit=_SAMPLE))
    if as_json:
        click.echo(to_json({"matching": selection.total, "oldest": sample}))
        return
    click.echo(f"{selection.total} slips match. Nothing was changed.")
    for row in sample:
        click.echo(
            f"{row['slip']}  {format_moment(row['since'])}  {row['branch']:<10}{row['request']:<16}{row['words']}"
        )
    if selection.total > len(sample):
        click.echo(f"... and {selection.total - len(sample)} more")


def _act(
    action: "Callable[[Operator, Context], list[Done]]", actor: str | None, reason: str | None, as_json: bool
) -> None:
    from tasks.printing.actions import RefusedActionError

    with acting() as context:
        try:
            results = action(command_operator(actor, reason), context)
        except RefusedActionError as error:
            raise click.ClickException(f"{error} Nothing was changed.") from None
    if as_json:
        click.echo(to_json({"slips": [_as_json(each) for each in results]}))
        return
    for result in results:
        click.echo(f"{result.slip}  {result.message}")


def _as_json(done: "Done") -> dict[str, str]:
    return {"slip": str(done.slip), "state": done.state.value, "message": done.message}
