# SPDX-License-Identifier: Apache-2.0
"""`scan` and `return`: the two ways to return, and `undo`."""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Literal

import click

from stations.commands.output import (
    NOT_TAKEN,
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
)

if TYPE_CHECKING:
    from uuid import UUID

    from stations.client import StationClient


@click.command("scan")
@click.argument("barcodes", nargs=-1, required=True, metavar="BARCODE...")
@click.option(
    "--print-slip/--no-print-slip", default=None, help="Whether a slip is wanted (default: the station's setting)."
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
    """Scan each BARCODE, all at once, and show the answers in their order.

    \b
    bookdrop-station scan 31000000170 31000000187
    bookdrop-station scan --json --no-print-slip 31000000170 | jq .message
    bookdrop-station scan --wait 0 31000000170       do not wait: code 3, answered to a later command
    """
    from schemas.barcodes import BarcodeRefusedError
    from stations.client import PatronCardError, StationClient
    from stations.journal.file import JournalError
    from stations.messages import printable, refused_locally

    settings = load_settings(code)
    with journal_errors(), StationClient(settings) as client:
        show = ReplyPrinter(client, settings.reply_timeout_seconds if wait is None else wait, as_json=as_json)
        steps: list[Callable[[], int]] = []
        failure: CommandError | None = None
        for barcode in barcodes:
            try:
                event_id = client.scan(barcode, returned_at=backdate, print_slip=print_slip)
            except (BarcodeRefusedError, PatronCardError) as error:
                subject = "" if isinstance(error, PatronCardError) else printable(barcode)
                shown = refused_locally(subject, str(error))
                steps.append(partial(show.without_reply, shown, subject, "refused"))
            except JournalError as error:
                failure = CommandError(f"{printable(barcode)}: {error}", NOT_TAKEN)
                break
            else:
                steps.append(partial(show.reply, event_id, barcode))
        result = max((step() for step in steps), default=SUCCESS)
        if failure is not None:
            raise failure
    raise SystemExit(result)


@click.command("return")
@click.argument("request")
@click.option("--form", is_flag=True, help="Ask for note and slip, then for OK or Cancel.")
@click.option("--note", help="A note for the request's history.")
@click.option("--print-slip/--no-print-slip", default=False, help="Automatically print slip (default: no).")
@backdate_option
@click.option("--partial", is_flag=True, help="Return it although not all of its items are here.")
@click.option(
    "--resolution",
    type=click.Choice(["found_by_library", "returned_by_patron"]),
    help="How a claim that it was returned long ago ends.",
)
@click.option("--supervisor", metavar="NAME", help="Who lets a lost item go home; needs --override-reason.")
@click.option("--override-reason", metavar="TEXT", help="Why; needs --supervisor.")
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
    """Return REQUEST (its external identifier), loaned to a patron or never loaned.

    \b
    bookdrop-station return BR-2026-00017
    bookdrop-station return BR-2026-00017 --print-slip --note "left in the reading room"
    bookdrop-station return BR-2026-00017 --form
    bookdrop-station return BR-2026-00018 --supervisor "A. Chief" --override-reason "found behind the shelf"
    """
    from schemas.events import Override

    if (supervisor is None) != (override_reason is None):
        raise click.UsageError("An override needs both --supervisor and --override-reason. Nothing was sent.")
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
@click.option("--request", help="Take back the last Return of this request, wherever it was made.")
@click.option("--reason", help="Needed once the undo window is over; then the status alone comes back.")
@wait_option
@json_option
@click.pass_obj
def undo_command(
    code: str | None, event: str | None, request: str | None, reason: str | None, wait: float | None, as_json: bool
) -> None:
    """Take back a Return that was made by mistake: that of EVENT, or "last" for this desk's last one.

    Within the undo window (10 minutes, unless set) status, loan and slip are as before. Later the status alone,
    with a reason. Never once the lender has confirmed.

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
