# SPDX-License-Identifier: Apache-2.0
"""`pack` and `reprint`: what a desk says of slips."""

from typing import TYPE_CHECKING

import click

from stations.commands.output import USAGE_ERROR, CommandError, json_option, send_and_print, wait_option

if TYPE_CHECKING:
    from uuid import UUID

    from stations.client import StationClient


@click.command("pack")
@click.argument("slip")
@click.argument("barcode")
@wait_option
@json_option
@click.pass_obj
def pack_command(code: str | None, slip: str, barcode: str, wait: float | None, as_json: bool) -> None:
    """Check that SLIP (its own code, as scanned) lies in the item that bears BARCODE.

    When they belong together the slip is confirmed; a wrong slip in a book is refused, loudly. At a desk scan the
    slip's code and then the item.

    \b
    bookdrop-station pack BD:01a20aee-905b-70e3-bbdd-6f98a0bee5d1 31000000170
    """
    from schemas.barcodes import SLIP_PREFIX, slip_of
    from schemas.circulation_events import SlipSeen

    wanted = slip_of(slip if slip.upper().startswith(SLIP_PREFIX) else SLIP_PREFIX + slip)
    if wanted is None:
        raise CommandError(f"{slip} is no slip's code. Nothing was sent.", USAGE_ERROR)
    send_and_print(
        code,
        lambda client: client.send_event(SlipSeen, slip=wanted, barcode=client.read_barcode(barcode)),
        barcode,
        wait=wait,
        as_json=as_json,
    )


@click.command("reprint")
@click.argument("event")
@click.option("--reason", required=True, help="Why; stands in the history.")
@wait_option
@json_option
@click.pass_obj
def reprint_command(code: str | None, event: str, reason: str, wait: float | None, as_json: bool) -> None:
    """Have the slip of a Return printed once more: that of EVENT, or "last" for this desk's last one.

    COPY 2 (or 3 ...) stands on it, for the first one may still be in a book.

    \b
    bookdrop-station reprint last --reason "torn"
    """
    from schemas.circulation_events import ReprintRequested
    from stations.journal.events import last_returned
    from stations.messages import NOTHING_RETURNED

    def send(client: "StationClient") -> "UUID":
        wanted = last_returned(client.journal) if event == "last" else event
        if wanted is None:
            raise CommandError(NOTHING_RETURNED, USAGE_ERROR)
        return client.send_event(ReprintRequested, reprints=wanted, reason=reason)

    send_and_print(code, send, event, wait=wait, as_json=as_json)
