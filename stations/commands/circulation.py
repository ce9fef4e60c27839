# SPDX-License-Identifier: Apache-2.0
"""`receive`, `loan`, `discharge`, `complete`: the cycle around the Return."""

from datetime import datetime

import click

from stations.commands.output import TimeOption, backdate_option, json_option, send_and_print, wait_option


@click.command("receive")
@click.argument("request")
@click.argument("barcodes", nargs=-1, required=True, metavar="BARCODE...")
@click.option("--strap", is_flag=True, help="The barcodes are straps of ours, to be used again for other items.")
@click.option(
    "--also",
    nargs=2,
    multiple=True,
    metavar="BARCODE OTHER",
    help="OTHER is on the same item as BARCODE, such as the lender's own barcode under the strap.",
)
@click.option("--not-for-loan", is_flag=True, help="The lender allows reading in the library only.")
@click.option(
    "--return-to", multiple=True, metavar="LINE", help="Return address given with this item; once for each line."
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
    """A parcel came for REQUEST: make its items, one for each BARCODE.

    \b
    bookdrop-station receive BR-2026-00017 31000000170
    bookdrop-station receive BR-2026-00017 ILL-00017 --strap --also ILL-00017 31000000170
    """
    from schemas.circulation_events import ItemsReceived, ReceivedItem

    if unknown := [first for first, _ in also if first not in barcodes]:
        raise click.UsageError(f"--also names {unknown[0]}, which is none of the items. Nothing was sent.")
    send_and_print(
        code,
        lambda client: client.send_event(
            ItemsReceived,
            request=request,
            items=tuple(
                ReceivedItem(
                    barcode=each, temporary=strap, other_barcodes=tuple(other for first, other in also if first == each)
                )
                for each in barcodes
            ),
            for_loan=not not_for_loan,
            return_address=return_to,
        ),
        request,
        wait=wait,
        as_json=as_json,
    )


@click.command("loan")
@click.argument("barcode")
@click.option("--due", type=TimeOption(), metavar="TIME", help="When it is due back, such as 2026-12-20.")
@wait_option
@json_option
@click.pass_obj
def loan_command(code: str | None, barcode: str, due: datetime | None, wait: float | None, as_json: bool) -> None:
    """Lend the item that bears BARCODE to the reader of its request.

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
    """End the loan of the item that bears BARCODE without returning it to its lender: "Returned by patron".

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
    """The lender has confirmed that REQUEST is back: "Request completed".

    \b
    bookdrop-station complete BR-2026-00017
    """
    from schemas.circulation_events import RequestCompleted

    send_and_print(
        code, lambda client: client.send_event(RequestCompleted, request=request), request, wait=wait, as_json=as_json
    )
