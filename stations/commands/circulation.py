# SPDX-License-Identifier: Apache-2.0
"""`receive`, `loan`, `discharge`, `complete`: the circulation events around the Return."""

from datetime import datetime
from typing import TYPE_CHECKING

import click

from stations.commands.output import DueOption, backdate_option, json_option, send_and_print, wait_option

if TYPE_CHECKING:
    from uuid import UUID

    from stations.client import StationClient


@click.command("receive")
@click.argument("request")
@click.argument("barcodes", nargs=-1, required=True, metavar="BARCODE...")
@click.option(
    "--strap", is_flag=True, help="The barcodes are on the library's own straps, which are reused for other items."
)
@click.option(
    "--also",
    nargs=2,
    multiple=True,
    metavar="BARCODE OTHER",
    help="OTHER is on the same item as BARCODE, for example the lender's barcode under the strap.",
)
@click.option("--not-for-loan", is_flag=True, help="The lender allows use in the library only.")
@click.option(
    "--return-to", multiple=True, metavar="LINE", help="Return address that came with this item; repeat for each line."
)
@wait_option
@json_option
@click.pass_obj
def receive_command(
    code: str | None,
    request: str,
    barcodes: tuple[str, ...],
    strap: bool,
    also: tuple[tuple[str, str], ...],
    not_for_loan: bool,
    return_to: tuple[str, ...],
    wait: float | None,
    as_json: bool,
) -> None:
    """Receive the parcel for REQUEST, with one item for each BARCODE.

    \b
    bookdrop-station receive BR-2026-00017 31000000170
    bookdrop-station receive BR-2026-00017 ILL-00017 --strap --also ILL-00017 31000000170
    """
    from schemas.circulation_events import ItemsReceived, ReceivedItem

    if unknown := [first for first, _ in also if first not in barcodes]:
        raise click.UsageError(f"--also names {unknown[0]}, which is not one of the items. Nothing was sent.")

    def send(client: "StationClient") -> "UUID":
        items = tuple(
            ReceivedItem(
                barcode=client.read_barcode(barcode),
                temporary=strap,
                other_barcodes=tuple(client.read_barcode(other) for first, other in also if first == barcode),
            )
            for barcode in barcodes
        )
        return client.send_event(
            ItemsReceived, request=request, items=items, for_loan=not not_for_loan, return_address=return_to
        )

    send_and_print(code, send, request, wait=wait, as_json=as_json)


@click.command("loan")
@click.argument("barcode")
@click.option("--due", type=DueOption(), metavar="TIME", help="Due date, for example 2026-12-20: the end of that day.")
@wait_option
@json_option
@click.pass_obj
def loan_command(code: str | None, barcode: str, due: datetime | None, wait: float | None, as_json: bool) -> None:
    """Lend the item with BARCODE to the patron of its request.

    \b
    bookdrop-station loan 31000000170 --due 2026-12-20
    """
    from schemas.circulation_events import ItemLoaned

    send_and_print(
        code,
        lambda client: client.send_event(ItemLoaned, barcode=client.read_barcode(barcode), due_at=due),
        barcode,
        wait=wait,
        as_json=as_json,
    )


@click.command("discharge")
@click.argument("barcode")
@backdate_option
@wait_option
@json_option
@click.pass_obj
def discharge_command(
    code: str | None, barcode: str, backdate: datetime | None, wait: float | None, as_json: bool
) -> None:
    """Discharge the loan of the item with BARCODE without returning it to its lender: "Returned by patron".

    \b
    bookdrop-station discharge 31000000170
    """
    from schemas.circulation_events import LoanDischarged

    send_and_print(
        code,
        lambda client: client.send_event(LoanDischarged, barcode=client.read_barcode(barcode), returned_at=backdate),
        barcode,
        wait=wait,
        as_json=as_json,
    )


@click.command("complete")
@click.argument("request")
@wait_option
@json_option
@click.pass_obj
def complete_command(code: str | None, request: str, wait: float | None, as_json: bool) -> None:
    """Record that the lender has confirmed the return of REQUEST: "Request completed".

    \b
    bookdrop-station complete BR-2026-00017
    """
    from schemas.circulation_events import RequestCompleted

    send_and_print(
        code, lambda client: client.send_event(RequestCompleted, request=request), request, wait=wait, as_json=as_json
    )
