# SPDX-License-Identifier: Apache-2.0
"""`bookdrop requests`: list and show requests, as text or JSON. The output contains no patron."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click

from workers.commands.options import json_option
from workers.commands.sessions import reading


@click.group("requests")
def requests_group() -> None:
    """Show borrowing requests."""


@requests_group.command("list")
@click.option("--status", help='Only requests with this status, for example "Loaned to patron" or loaned.')
@click.option("--partner", metavar="CODE", help="Only requests of this lender.")
@click.option("--branch", metavar="CODE", help="Only requests of this branch.")
@click.option("--overdue", is_flag=True, help="Only requests with a loan past its due date.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000), help="Maximum number.")
@click.option("--after", default=0, metavar="N", help="Continue after the number that the previous page printed.")
@json_option
def list_command(
    status: str | None, partner: str | None, branch: str | None, overdue: bool, limit: int, after: int, as_json: bool
) -> None:
    """List requests, oldest first.

    Example: bookdrop requests list --status "Loaned to patron" --overdue
    """
    from schemas.request_status import RequestStatus
    from tasks.requests.queries import Filter, page

    try:
        wanted = RequestStatus.parse(status) if status else None
    except ValueError as error:
        known = ", ".join(each.label for each in RequestStatus)
        raise click.BadParameter(f"{error}. Known: {known}", param_hint="--status") from None
    chosen = Filter(status=wanted, partner=partner, branch=branch, overdue=overdue, after=after, limit=limit)
    with reading() as connection:
        found = page(connection, chosen, datetime.now(UTC))
    if as_json:
        click.echo(
            json.dumps({"requests": found.requests, "next_after": found.next_after}, indent=2, ensure_ascii=False)
        )
        return
    for row in found.requests:
        click.echo(
            f"{row['request']:<16}{row['status_label']:<34}{row['partner']:<12}{row['branch']:<10}{row['title'][:60]}"
        )
    if found.next_after is not None:
        click.echo(f"More: --after {found.next_after}")
    elif not found.requests:
        click.echo("No request matches.")


@requests_group.command("show")
@click.argument("request")
@json_option
def show_command(request: str, as_json: bool) -> None:
    """Show REQUEST (its external identifier) with items, loans, slips and history."""
    from tasks.requests.queries import story

    with reading() as connection:
        found = story(connection, request)
    if found is None:
        raise click.ClickException(f"There is no request {request}. Run 'bookdrop requests list' to see all.")
    click.echo(json.dumps(found, indent=2, ensure_ascii=False) if as_json else "\n".join(_lines(found)))


def _lines(found: dict[str, Any]) -> Iterator[str]:
    yield f"{found['request']}   {found['status_label']}"
    yield f"  {found['title']}" + (f" / {found['author']}" if found["author"] else "")
    yield f"  Lender {found['partner_name']} ({found['partner']}), delivery code {found['delivery_code'] or 'none'}"
    yield f"  Branch {found['branch']}"
    for item in found["items"]:
        codes = ", ".join(code["barcode"] + (" (temporary)" if code["temporary"] else "") for code in item["barcodes"])
        back = f", back {_local(item['returned_at'])} at {item['returned_by']}" if item["returned_at"] else ""
        yield f"  Item {item['position']}: {codes}{back}"
        for loan in item["loans"]:
            end = (
                f"discharged {_local(loan['discharged_at'])}"
                if loan["discharged_at"]
                else f"due {_local(loan['due_at'])}"
            )
            yield f"    Loan of {_local(loan['loaned_at'])}, {end}"
    for slip in found["slips"]:
        yield f"  Slip {slip['slip']}: {slip['state'].replace('_', ' ')} since {_local(slip['since'])}, copy {slip['copy']}"
    yield "  History"
    for event in found["history"]:
        where = f" at {event['station']}" if event["station"] else ""
        status = f" -> {event['status_after'].replace('_', ' ')}" if event["status_after"] else ""
        yield f"    {_local(event['at'])}  {event['what'].replace('_', ' ')}{status}{where}"
        if event["what"] in {"returned", "item_checked_in"} and event["event"]:
            yield f"      event {event['event']}"
        if event["note"]:
            yield from (f"      {line}" for line in event["note"].splitlines())


def _local(moment: str | None) -> str:
    """Format a time in the machine's time zone."""
    return "-" if moment is None else f"{datetime.fromisoformat(moment).astimezone():%Y-%m-%d %H:%M}"
