# SPDX-License-Identifier: Apache-2.0
"""`bookdrop items`: show the items of a request; add, remove and correct their barcodes."""

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from workers.commands.json_output import to_json
from workers.commands.moments import format_moment
from workers.commands.options import actor_option, command_operator, json_option
from workers.commands.sessions import acting, reading

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from tasks.requests.item_barcodes import Change, Editor

position_option = click.option(
    "--position", type=click.IntRange(min=1), help="The item's position; needed when a request has several items."
)
reason_option = click.option("--reason", required=True, help="Reason; recorded in the history.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Show the result; change nothing.")


@click.group("items")
def items_group() -> None:
    """Show the items of a request; add, remove and correct their barcodes.

    Each change is recorded in the request's history. An import does not add a removed barcode again.
    """


@items_group.command("show")
@click.argument("request")
@json_option
def show_command(request: str, as_json: bool) -> None:
    """Show the items of REQUEST (its external identifier), their barcodes, and the changes of these.

    Exit codes: 0 shown; 1 there is no such request.
    """
    from tasks.operator import named_person
    from tasks.requests.queries import story

    with reading() as connection:
        found = story(connection, request.strip())
    if found is None:
        raise click.ClickException(f"There is no request {request}. Run 'bookdrop requests list' to see all.")
    changes = [line for line in found["history"] if line["what"] in {"barcode_added", "barcode_removed"}]
    if as_json:
        content = {name: found[name] for name in ("request", "status", "items")} | {"barcode_changes": changes}
        click.echo(to_json(content))
        return
    click.echo(f"{found['request']}   {found['status_label']}")
    for item in found["items"]:
        codes = ", ".join(code["barcode"] + (" (temporary)" if code["temporary"] else "") for code in item["barcodes"])
        description = f"  {item['description']}" if item["description"] else ""
        click.echo(f"  Item {item['position']}: {codes or 'no barcode'}{description}")
    for line in changes:
        details = line["details"]
        verb = line["what"].removeprefix("barcode_")
        note = f": {line['note']}" if line["note"] else ""
        click.echo(
            f"  {format_moment(line['at'])}  {details['barcode']} {verb}, item {details['item']},"
            f" by {named_person(details['actor'], details.get('identified_by'), details.get('account'))}{note}"
        )


@items_group.command("add-barcode")
@click.argument("request")
@click.argument("barcode")
@position_option
@click.option("--temporary", is_flag=True, help="The barcode of a strap, not the lender's.")
@reason_option
@actor_option
@dry_run_option
@json_option
def add_barcode_command(
    request: str,
    barcode: str,
    position: int | None,
    temporary: bool,
    reason: str,
    actor: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Add BARCODE to an item of REQUEST. Barcodes of other items, and of other open requests, are refused.

    Example: bookdrop items add-barcode BR-1 31000012345 --position 2 --reason "second volume"

    Exit codes: 0 added, or there already; 1 refused; 2 usage error.
    """
    from tasks.requests.item_barcodes import add_barcode

    _change(
        lambda session, editor: add_barcode(session, request, barcode, editor, position=position, temporary=temporary),
        actor, reason, dry_run=dry_run, as_json=as_json,
    )  # fmt: skip


@items_group.command("remove-barcode")
@click.argument("request")
@click.argument("barcode")
@position_option
@reason_option
@actor_option
@dry_run_option
@json_option
def remove_barcode_command(
    request: str, barcode: str, position: int | None, reason: str, actor: str | None, dry_run: bool, as_json: bool
) -> None:
    """Remove BARCODE from its item of REQUEST. The last barcode of an item is refused.

    Exit codes: 0 removed; 1 refused; 2 usage error.
    """
    from tasks.requests.item_barcodes import remove_barcode

    _change(
        lambda session, editor: remove_barcode(session, request, barcode, editor, position=position),
        actor, reason, dry_run=dry_run, as_json=as_json,
    )  # fmt: skip


@items_group.command("correct-barcode")
@click.argument("request")
@click.argument("old")
@click.argument("new")
@position_option
@reason_option
@actor_option
@dry_run_option
@json_option
def correct_barcode_command(
    request: str,
    old: str,
    new: str,
    position: int | None,
    reason: str,
    actor: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Replace the barcode OLD of an item of REQUEST by NEW.

    Example: bookdrop items correct-barcode BR-1 3100001234 31000012345 --reason "a digit was missing"

    Exit codes: 0 corrected, or correct already; 1 refused; 2 usage error.
    """
    from tasks.requests.item_barcodes import correct_barcode

    _change(
        lambda session, editor: correct_barcode(session, request, old, new, editor, position=position),
        actor, reason, dry_run=dry_run, as_json=as_json,
    )  # fmt: skip


def _change(
    change: "Callable[[Session, Editor], Change]", actor: str | None, reason: str, *, dry_run: bool, as_json: bool
) -> None:
    """Run `change` in one transaction, and show its result."""
    from tasks.requests.item_barcodes import Editor, RefusedBarcodeError
    from tasks.unit_of_work import retry_on_conflict

    with acting() as context:
        editor = Editor(command_operator(actor, reason), context.now(), context.patron_card_pattern)

        def work() -> "Change":
            with context.sessions() as session:
                result = change(session, editor)
                if dry_run:
                    session.rollback()
                else:
                    session.commit()
                return result

        try:
            result = retry_on_conflict(work)
        except RefusedBarcodeError as error:
            raise click.ClickException(f"{error} Nothing was changed.") from None
    if as_json:
        content: dict[str, Any] = asdict(result) | {"kept": not dry_run}
        click.echo(to_json(content))
        return
    click.echo(f"{result.message}. Barcodes: {', '.join(result.barcodes)}")
    if dry_run:
        click.echo("Dry run. Nothing was changed.")
