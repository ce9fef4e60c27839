# SPDX-License-Identifier: Apache-2.0
"""`bookdrop requests`: find, list and show requests, as text, CSV or JSON. The output contains no patron."""

import csv
import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from workers.commands.json_output import to_json
from workers.commands.moments import format_moment
from workers.commands.options import csv_option, json_option, spreadsheet_safe
from workers.commands.sessions import reading

if TYPE_CHECKING:
    from tasks.requests.search import Identified, Page

CSV_COLUMNS = (
    "request", "status", "title", "author", "isbn", "partner", "branch", "barcodes", "created_at", "returned_at"
)  # fmt: skip
TEXT_COLUMNS = {"request": 16, "status_label": 30, "partner": 12, "branch": 10, "created": 11, "barcodes": 24}
"""Columns of the text before the title, and their smallest widths."""
HEADINGS = {"request": "REQUEST", "status_label": "STATUS", "partner": "LENDER", "branch": "BRANCH",
            "created": "CREATED", "barcodes": "BARCODES"}  # fmt: skip


@click.group("requests")
def requests_group() -> None:
    """Find and show borrowing requests."""


@requests_group.command("find")
@click.argument("what", nargs=-1, required=True, metavar="WORDS|BARCODE|ISBN|REQUEST...")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000), help="Maximum number.")
@csv_option
@json_option
def find_command(what: tuple[str, ...], limit: int, as_csv: bool, as_json: bool) -> None:
    """Find requests by words of title and author, by an item's barcode, by ISBN, or by external identifier.

    A word matches from its beginning, without regard to case and diacritics; all words must match. Newest first.

    \b
    Example: bookdrop requests find muller garten
             bookdrop requests find 31000012345678
             bookdrop requests find 978-3-16-148410-0
    """
    from tasks.requests.search import Filter, identify, page

    phrase = " ".join(what)
    with reading() as connection:
        identified = identify(connection, phrase)
        wanted = (
            Filter(ids=[each.id for each in identified], limit=limit)
            if identified
            else Filter(words=phrase, limit=limit)
        )
        found = page(connection, wanted, datetime.now(UTC))
    _print(found, as_csv=as_csv, as_json=as_json)


@requests_group.command("list")
@click.option("--status", help='Only requests with this status, for example "Loaned to patron" or loaned.')
@click.option("--partner", metavar="CODE", help="Only requests of this lender.")
@click.option("--branch", metavar="CODE", help="Only requests of this branch.")
@click.option("--overdue", is_flag=True, help="Only requests with a loan past its due date.")
@click.option("--words", metavar="WORDS", help="Only requests with words of title or author that begin so.")
@click.option("--from", "since", metavar="DATE", help="Only requests created on this day or later: YYYY-MM-DD.")
@click.option("--to", "until", metavar="DATE", help="Only requests created on this day or before: YYYY-MM-DD.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000), help="Maximum number.")
@click.option("--after", type=int, metavar="N", help="Continue after the number that the previous page printed.")
@csv_option
@json_option
def list_command(
    status: str | None,
    partner: str | None,
    branch: str | None,
    overdue: bool,
    words: str | None,
    since: str | None,
    until: str | None,
    limit: int,
    after: int | None,
    as_csv: bool,
    as_json: bool,
) -> None:
    """List requests, newest first, with their number.

    Days are those of this machine's time zone.

    \b
    Example: bookdrop requests list --status "Loaned to patron" --overdue
             bookdrop requests list --words garten --from 2026-01-01 --csv
    """
    from schemas.request_status import RequestStatus
    from tasks.requests.search import Filter, page

    try:
        wanted = RequestStatus.parse(status) if status else None
    except ValueError as error:
        known = ", ".join(each.label for each in RequestStatus)
        raise click.BadParameter(f"{error}. Known: {known}", param_hint="--status") from None
    chosen = Filter(
        status=wanted,
        partner=partner,
        branch=branch,
        overdue=overdue,
        words=words,
        created_from=_midnight(since, "--from"),
        created_before=_midnight(until, "--to", days=1),
        after=after,
        limit=limit,
    )
    with reading() as connection:
        found = page(connection, chosen, datetime.now(UTC))
    _print(found, as_csv=as_csv, as_json=as_json)


def _midnight(day: str | None, option: str, days: int = 0) -> datetime | None:
    """The beginning of the local day, or of a later one, in UTC."""
    if day is None:
        return None
    try:
        moment = datetime.combine(date.fromisoformat(day) + timedelta(days=days), datetime.min.time())
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{day!r} is not a date such as 2026-11-28.", param_hint=option) from None


def _print(found: "Page", *, as_csv: bool, as_json: bool) -> None:
    if as_csv and as_json:
        raise click.UsageError("Choose --csv or --json.")
    if as_json:
        content = {"requests": found.requests, "total": found.total, "next_after": found.next_after}
        click.echo(to_json(content))
        return
    if as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(CSV_COLUMNS)
        for row in found.requests:
            cells = row | {"barcodes": "|".join(row["barcodes"])}
            writer.writerow([spreadsheet_safe(cells[name]) for name in CSV_COLUMNS])
    elif not found.requests:
        click.echo("No request matches.")
    else:
        _print_table(found.requests)
        from tasks.requests.search import MAX_COUNTED

        total = f"more than {MAX_COUNTED:,}" if found.total is None else f"{found.total:,}"
        click.echo(f"{len(found.requests)} of {total}.")
    if found.next_after is not None:
        click.echo(f"More: --after {found.next_after}", err=as_csv)


def _print_table(requests: list[dict[str, Any]]) -> None:
    rows = [
        row | {"barcodes": ", ".join(row["barcodes"]), "created": format_moment(row["created_at"])[:10]}
        for row in requests
    ]
    widths = {name: max(least, *(len(row[name]) + 2 for row in rows)) for name, least in TEXT_COLUMNS.items()}
    rest = max(20, shutil.get_terminal_size((200, 24)).columns - sum(widths.values()))
    click.echo("".join(f"{HEADINGS[name]:<{width}}" for name, width in widths.items()) + "TITLE")
    for row in rows:
        click.echo("".join(f"{row[name]:<{width}}" for name, width in widths.items()) + row["title"][:rest])


@requests_group.command("show")
@click.argument("request", metavar="REQUEST|BARCODE")
@json_option
def show_command(request: str, as_json: bool) -> None:
    """Show one request with items, loans, slips and history: by its external identifier, or by an item's barcode.

    A barcode shows its open request; without an open one, the newest.
    """
    from tasks.requests.queries import story
    from tasks.requests.search import identify

    with reading() as connection:
        identified = identify(connection, request)
        chosen, others = _choose(request, identified)
        found = story(connection, chosen.external_id)
    if as_json:
        click.echo(to_json(found))
        return
    click.echo("\n".join(_lines(found or {})))
    if others:
        click.echo(f"Other requests: {', '.join(others)}")


def _choose(text: str, identified: "list[Identified]") -> "tuple[Identified, list[str]]":
    """The request to show, and the external identifiers of the others."""
    if not identified:
        raise click.ClickException(
            f"There is no request {text}, and no item with this barcode. Run 'bookdrop requests find WORDS' to search."
        )
    still_open = [each.external_id for each in identified if each.is_open]
    if len(still_open) > 1:
        raise click.ClickException(
            f"{text} belongs to {len(still_open)} open requests. Show one of them: {', '.join(still_open)}"
        )
    return identified[0], [each.external_id for each in identified[1:]]


def _lines(found: dict[str, Any]) -> Iterator[str]:
    yield f"{found['request']}   {found['status_label']}"
    yield f"  {found['title']}" + (f" / {found['author']}" if found["author"] else "")
    yield f"  Lender {found['partner_name']} ({found['partner']}), delivery code {found['delivery_code'] or 'none'}"
    yield f"  Branch {found['branch']}"
    for item in found["items"]:
        codes = ", ".join(code["barcode"] + (" (temporary)" if code["temporary"] else "") for code in item["barcodes"])
        back = f", back {format_moment(item['returned_at'])} at {item['returned_by']}" if item["returned_at"] else ""
        yield f"  Item {item['position']}: {codes}{back}"
        for loan in item["loans"]:
            end = (
                f"discharged {format_moment(loan['discharged_at'])}"
                if loan["discharged_at"]
                else f"due {format_moment(loan['due_at'])}"
            )
            yield f"    Loan of {format_moment(loan['loaned_at'])}, {end}"
    for slip in found["slips"]:
        yield f"  Slip {slip['slip']}: {slip['state'].replace('_', ' ')} since {format_moment(slip['since'])}, copy {slip['copy']}"
    yield "  History"
    for event in found["history"]:
        where = f" at {event['station']}" if event["station"] else ""
        status = f" -> {event['status_after'].replace('_', ' ')}" if event["status_after"] else ""
        yield f"    {format_moment(event['at'])}  {event['what'].replace('_', ' ')}{status}{where}"
        if event["what"] in {"returned", "item_checked_in"} and event["event"]:
            yield f"      event {event['event']}"
        yield from _persons(event["details"])
        if event["note"]:
            yield from (f"      {line}" for line in event["note"].splitlines())


def _persons(details: dict[str, Any]) -> Iterator[str]:
    """The operator of a line of history, and the supervisor of an override, with how each was identified."""
    from tasks.operator import named_person

    if "actor" in details:
        yield f"      by {named_person(details['actor'], details.get('identified_by'), details.get('account'))}"
    if override := details.get("override"):
        supervisor = named_person(override["supervisor"], override.get("identified_by"))
        reason = f": {override['reason']}" if override["reason"] else ""
        yield f"      override by {supervisor}{reason}"
