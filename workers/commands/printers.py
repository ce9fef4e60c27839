# SPDX-License-Identifier: Apache-2.0
"""`bookdrop printers`: what printers there are, how they do, and what operations do to them."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

import click

from workers.commands.sessions import deciding, reading

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from tasks.printing.printers.driver import PrinterDriver

Result = TypeVar("Result")
json_option = click.option("--json", "as_json", is_flag=True, help="For scripts.")


@click.group("printers")
def printers_group() -> None:
    """Look at printers, register them, hold them, let them go on."""


@printers_group.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """List every printer: what it is, how it does, and how many slips wait for it."""
    from tasks.printing.queries import printers

    with reading() as connection:
        found = printers(connection, datetime.now(UTC))
    if as_json:
        click.echo(json.dumps({"printers": found}, indent=2, ensure_ascii=False))
        return
    for each in found:
        state = "on hold" if each["on_hold"] else f"away: {each['trouble']}" if each["away"] else "ready"
        notes = [f"{each['waiting']} waiting"] * bool(each["waiting"]) + ["default"] * each["default"]
        notes += [f"fallback {each['fallback']}"] if each["fallback"] else []
        extra = f"  ({', '.join(notes)})" if notes else ""
        click.echo(f"{each['printer']:<16}{each['branch']:<10}{each['media']:<12}{each['uri']}  {state}{extra}")
    if not found:
        click.echo("No printer is registered: bookdrop printers add CODE --branch BRANCH --uri URI")


@printers_group.command("add")
@click.argument("printer", metavar="CODE")
@click.option("--branch", required=True, metavar="CODE", help="Where it stands.")
@click.option(
    "--uri", required=True, help="Such as ipp://host/ipp/print, socket://host:9100, lp://queue, spool:///dir."
)
@click.option("--media", default="label-4x6", show_default=True, help="Paper: label-4x6, a6, a4-corner, receipt-80.")
@click.option("--default/--no-default", "is_default", default=None, help="Takes the slips of the branch's stations.")
@click.option("--fallback", metavar="CODE", help="Printer that takes its slips while it is on hold or away.")
@click.option("--station", "stations", multiple=True, metavar="CODE", help="Station whose slips it takes; repeatable.")
def add_command(
    printer: str,
    branch: str,
    uri: str,
    media: str,
    is_default: bool | None,
    fallback: str | None,
    stations: tuple[str, ...],
) -> None:
    """Register a printer, or change the one of that CODE. A branch's first one is its default.

    Example: bookdrop printers add main-labels --branch main --uri socket://10.1.2.3:9100 --fallback main-slips
    """
    from tasks.printing.printer_admin import add_printer

    done = _change(
        lambda session: add_printer(
            session,
            code=printer,
            branch=branch,
            uri=uri,
            media=media,
            is_default=is_default,
            fallback=fallback,
            stations=stations,
        )
    )
    click.echo(f"Printer {printer} {done}. Try it: bookdrop printers test-page {printer}")


@printers_group.command("check")
@click.argument("printer", metavar="CODE")
@json_option
def check_command(printer: str, as_json: bool) -> None:
    """Ask a printer how it is. Exits 1 when it is not ready."""
    driver, uri, _ = _opened(printer)
    status = driver.status()
    if as_json:
        told = {"printer": printer, "uri": uri, "ready": status.ready, "words": status.words, "reasons": status.reasons}
        click.echo(json.dumps(told, indent=2, ensure_ascii=False))
    else:
        knows = "says later what became of a slip" if driver.knows_its_jobs else "cannot say what became of a slip"
        click.echo(f"{printer}: {status.words}  ({uri}, takes {driver.language.upper()}, {knows})")
    raise SystemExit(0 if status.ready else 1)


@printers_group.command("hold")
@click.argument("printer", metavar="CODE")
def hold_command(printer: str) -> None:
    """Send no slips to a printer; they wait, or go to its fallback."""
    from tasks.printing.printer_admin import hold

    _change(lambda session: hold(session, printer))
    click.echo(f"Printer {printer} is on hold. Go on: bookdrop printers resume {printer}")


@printers_group.command("resume")
@click.argument("printer", metavar="CODE")
def resume_command(printer: str) -> None:
    """Send slips to a printer again; what waits for it goes out within seconds, in order."""
    from tasks.printing.printer_admin import resume

    _change(lambda session: resume(session, printer))
    click.echo(f"Printer {printer} goes on.")


@printers_group.command("test-page")
@click.argument("printer", metavar="CODE")
def test_page_command(printer: str) -> None:
    """Print a slip that says TEST, straight to the printer; no request has it."""
    from uuid6 import uuid7

    from schemas.print_jobs import Address, SlipContent
    from tasks.printing.printers.driver import PrinterError
    from tasks.slips.render import draw

    driver, uri, media = _opened(printer)
    page = SlipContent(
        job_id=uuid7(),
        delivery_code="TEST",
        return_to=Address(name="Test page: lay it in no book", lines=(f"Printer {printer}", uri[:80])),
        sent_from=Address(name="bookdrop printers test-page"),
        title="Ä ö ß é ł ő  Ελληνικά  Кириллица",
        author=None,
        external_id="TEST",
        barcode="TEST-0123456789",
        returned_on=datetime.now(UTC).date(),
    )
    try:
        name = driver.send(
            draw(page, media, driver.language, job_name=f"test-{page.job_id}"),
            job_name=f"test-{page.job_id}",
            on_first_byte=lambda: None,
        )
    except PrinterError as error:
        raise click.ClickException(f"{printer}: {error}") from None
    click.echo(f"Sent to {printer}; it is called {name} there.")


def _opened(code: str) -> "tuple[PrinterDriver, str, str]":
    from sqlalchemy import select

    from schemas.models import Printer
    from tasks.printing.printers.driver import PrinterError
    from tasks.printing.printers.factory import open_printer

    with reading() as connection:
        row = connection.execute(select(Printer.uri, Printer.media).where(Printer.code == code)).one_or_none()
    if row is None:
        raise click.ClickException(f"There is no printer {code}. 'bookdrop printers list' names them.")
    try:
        return open_printer(row.uri), row.uri, row.media
    except PrinterError as error:
        raise click.ClickException(str(error)) from None


def _change(change: "Callable[[Session], Result]") -> "Result":
    from tasks.printing.printer_admin import RefusedPrinterError
    from tasks.printing.printers.driver import PrinterError

    with deciding() as here:
        try:
            with here.unit_of_work() as uow:
                return change(uow.session)
        except (RefusedPrinterError, PrinterError) as error:
            raise click.ClickException(f"{error} Nothing was changed.") from None
