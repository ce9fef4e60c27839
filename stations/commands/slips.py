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
    """Check that SLIP (its own code, as scanned) lies in the item with BARCODE.

    The slip is confirmed when both belong together; a slip in the wrong item is refused. At the prompt, scan the
    slip's code and then the item.

    \b
    bookdrop-station pack BD:01a20aee-905b-70e3-bbdd-6f98a0bee5d1 31000000170
    """
    from schemas.barcodes import SLIP_PREFIX, parse_slip_code
    from schemas.circulation_events import SlipSeen

    slip_id = parse_slip_code(slip if slip.upper().startswith(SLIP_PREFIX) else SLIP_PREFIX + slip)
    if slip_id is None:
        raise CommandError(f"{slip} is not a slip's code. Nothing was sent.", USAGE_ERROR)
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
