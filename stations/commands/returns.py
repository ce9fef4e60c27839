# SPDX-License-Identifier: Apache-2.0
"""`scan` and `return`: the two ways to return, and `undo`."""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Literal

import click

from stations.commands.output import (
    NOT_STORED,
    SUCCESS,
    USAGE_ERROR,
    CommandError,
    ReplyPrinter,
    backdate_option,
    journal_errors,
    json_option,
    load_settings,
    send_and_print,
    wait_option,
    warn_of_rejected_messages,
)

if TYPE_CHECKING:
    from uuid import UUID

    from stations.client import StationClient


@click.command("scan")
@click.argument("barcodes", nargs=-1, required=True, metavar="BARCODE...")
@click.option(
    "--print-slip/--no-print-slip", default=None, help="Print a slip or not (default: the station's setting)."
)
@backdate_option
@wait_option
@json_option
@click.pass_obj
def scan_command(
    code: str | None,
    barcodes: tuple[str, ...],
    print_slip: bool | None,
    backdate: datetime | None,
    wait: float | None,
    as_json: bool,
) -> None:
    """Scan each BARCODE, all at once, and print the replies in the order given.

    \b
    bookdrop-station scan 31000000170 31000000187
    bookdrop-station scan --json --no-print-slip 31000000170 | jq .message
    bookdrop-station scan --wait 0 31000000170       do not wait: exit code 3, resent by a later command
    """
    from schemas.barcodes import BarcodeRefusedError
    from stations.client import PatronCardError, StationClient
    from stations.journal.file import JournalError
    from stations.messages import printable

    settings = load_settings(code)
    with journal_errors(), StationClient(settings) as client, warn_of_rejected_messages(client):
        printer = ReplyPrinter(client, settings.reply_timeout_seconds if wait is None else wait, as_json=as_json)
        steps: list[Callable[[], int]] = []
        failure: CommandError | None = None
        for barcode in barcodes:
            try:
                event_id = client.scan(barcode, returned_at=backdate, print_slip=print_slip)
            except (BarcodeRefusedError, PatronCardError) as error:
                steps.append(partial(printer.refused_line, barcode, error))
            except JournalError as error:
                failure = CommandError(f"{printable(barcode)}: {error}", NOT_STORED)
                break
            else:
                steps.append(partial(printer.reply, event_id, barcode))
        result = max((step() for step in steps), default=SUCCESS)
        if failure is not None:
            raise failure
    raise SystemExit(result)


@click.command("return")
@click.argument("request")
@click.option("--form", is_flag=True, help="Ask for the note and the slip, then for OK or Cancel.")
@click.option("--note", help="A note for the request's history.")
@click.option("--print-slip/--no-print-slip", default=False, help="Automatically print slip (default: no).")
@backdate_option
@click.option("--partial", is_flag=True, help="Return the request although some of its items are missing.")
@click.option(
    "--resolution",
    type=click.Choice(["found_by_library", "returned_by_patron"]),
    help="Resolution of a claim that the item was returned earlier.",
)
@click.option(
    "--supervisor",
    metavar="NAME",
    help="Name of the supervisor who allows the Return of a lost item; requires --override-reason.",
)
@click.option("--override-reason", metavar="TEXT", help="Reason for the override; requires --supervisor.")
@wait_option
@json_option
@click.pass_obj
def return_command(
    code: str | None,
    request: str,
    form: bool,
    note: str | None,
    print_slip: bool,
    backdate: datetime | None,
    partial: bool,
    resolution: Literal["found_by_library", "returned_by_patron"] | None,
    supervisor: str | None,
    override_reason: str | None,
    wait: float | None,
    as_json: bool,
) -> None:
    """Return REQUEST (its external identifier), whether or not it was loaned to a patron.

    \b
    bookdrop-station return BR-2026-00017
    bookdrop-station return BR-2026-00017 --print-slip --note "left in the reading room"
    bookdrop-station return BR-2026-00017 --form
    bookdrop-station return BR-2026-00018 --supervisor "A. Chief" --override-reason "found behind the shelf"
    """
    from schemas.events import Override

    if (supervisor is None) != (override_reason is None):
        raise click.UsageError("An override requires both --supervisor and --override-reason. Nothing was sent.")
    if form:
        note = click.prompt("Note", default=note or "", show_default=bool(note)) or None
        print_slip = click.confirm("Automatically print slip", default=print_slip)
        if not click.confirm(f"Return {request}: OK", default=True):
            click.echo("Cancelled. Nothing was changed.")
            raise SystemExit(SUCCESS)

    def send(client: "StationClient") -> "UUID":
        override = Override(reason=override_reason, supervisor=supervisor) if supervisor and override_reason else None
        return client.request_return(
            request,
            note=note,
            print_slip=print_slip,
            returned_at=backdate,
            override=override,
            resolution=resolution,
            force_partial=partial,
        )

    send_and_print(code, send, request, wait=wait, as_json=as_json)


@click.command("undo")
@click.argument("event", required=False)
@click.option("--request", help="Undo the last Return of this request, from any station.")
@click.option("--reason", help="Required after the undo window; then only the status is restored.")
@wait_option
@json_option
@click.pass_obj
def undo_command(
    code: str | None, event: str | None, request: str | None, reason: str | None, wait: float | None, as_json: bool
) -> None:
    """Undo a Return that was made by mistake: the Return of EVENT, or "last" for the last one of this station.

    Within the undo window (10 minutes by default) the status, the loan and the slip are restored. After it only the
    status is restored, and a reason is required. After the lender has confirmed, an undo is refused.

    \b
    bookdrop-station undo last
    bookdrop-station undo 01a20aee-905b-70e3-bbdd-6f98a0bee5d1
    bookdrop-station undo --request BR-2026-00017 --reason "wrong book scanned"
    """
    from schemas.circulation_events import UndoRequested
    from stations.journal.events import last_returned
    from stations.messages import NOTHING_RETURNED

    if (event is None) == (request is None):
        raise click.UsageError('Name an event (or "last"), or a request with --request. Nothing was sent.')

    def send(client: "StationClient") -> "UUID":
        if request is not None:
            return client.send_event(UndoRequested, request=request, reason=reason)
        undoes = last_returned(client.journal) if event == "last" else event
        if undoes is None:
            raise CommandError(NOTHING_RETURNED, USAGE_ERROR)
        return client.send_event(UndoRequested, undoes=undoes, reason=reason)

    send_and_print(code, send, request or str(event), wait=wait, as_json=as_json)
