# SPDX-License-Identifier: Apache-2.0
"""`pack` and `reprint`: the commands for slips."""

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
    """Check that SLIP lies in the item with BARCODE.

    SLIP is the slip's own code, as scanned, or its short form, as printed above the request. The slip is confirmed when
    both belong together; a slip in the wrong item is refused. At the prompt, scan or type the slip's code (beginning with
    BD), and then scan the item.

    \b
    bookdrop-station pack "BD HNXK PBRV VGTC" 31000000170
    """
    from schemas.circulation_events import SlipSeen
    from schemas.slip_codes import parse_typed_code

    slip_id = parse_typed_code(slip)
    if slip_id is None:
        raise CommandError(
            f"{slip} is not a slip's code. Scan the slip, or type the letters after the word Slip, beginning with BD. "
            "Nothing was sent.",
            USAGE_ERROR,
        )
    send_and_print(
        code,
        lambda client: client.send_event(SlipSeen, slip=slip_id, barcode=client.read_barcode(barcode)),
        barcode,
        wait=wait,
        as_json=as_json,
    )


@click.command("reprint")
@click.argument("event")
@click.option("--reason", required=True, help="Reason for the request's history.")
@wait_option
@json_option
@click.pass_obj
def reprint_command(code: str | None, event: str, reason: str, wait: float | None, as_json: bool) -> None:
    """Print the slip of a Return again: the Return of EVENT, or "last" for the last one of this station.

    The slip is marked COPY 2 (or 3 ...), because the first one may still be in an item.

    \b
    bookdrop-station reprint last --reason "torn"
    """
    from schemas.circulation_events import ReprintRequested
    from stations.journal.events import last_returned
    from stations.messages import NOTHING_RETURNED

    def send(client: "StationClient") -> "UUID":
        event_id = last_returned(client.journal) if event == "last" else event
        if event_id is None:
            raise CommandError(NOTHING_RETURNED, USAGE_ERROR)
        return client.send_event(ReprintRequested, reprints=event_id, reason=reason)

    send_and_print(code, send, event, wait=wait, as_json=as_json)
