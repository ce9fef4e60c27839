# SPDX-License-Identifier: Apache-2.0
"""`bookdrop printers`: list, register, check, hold, resume and test printers."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

import click

from workers.commands.json_output import to_json
from workers.commands.options import json_option
from workers.commands.sessions import acting, reading

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from tasks.printing.printers.driver import PrinterDriver

Result = TypeVar("Result")


@click.group("printers")
def printers_group() -> None:
    """List, register, check, hold and resume printers."""


@printers_group.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """List the printers with their state and the number of waiting slips."""
    from tasks.printing.queries import printers

    with reading() as connection:
        found = printers(connection)
    if as_json:
        click.echo(to_json({"printers": found}))
        return
    for row in found:
        state = "on hold" if row["on_hold"] else f"unavailable: {row['trouble']}" if row["away"] else "ready"
        notes = [f"{row['waiting']} waiting"] * bool(row["waiting"]) + ["default"] * row["default"]
        notes += [f"fallback {row['fallback']}"] if row["fallback"] else []
        suffix = f"  ({', '.join(notes)})" if notes else ""
        click.echo(f"{row['printer']:<16}{row['branch']:<10}{row['media']:<12}{row['uri']}  {state}{suffix}")
    if not found:
        click.echo("No printer is registered. Register one: bookdrop printers add CODE --branch BRANCH --uri URI")


@printers_group.command("add")
@click.argument("printer", metavar="CODE")
@click.option("--branch", required=True, metavar="CODE", help="Branch of the printer.")
@click.option(
    "--uri",
    required=True,
    help="For example ipp://host/ipp/print, socket://host:9100, lp://queue or spool:///folder.",
)
@click.option("--media", default="label-4x6", show_default=True, help="Paper: label-4x6, a6, a4-corner, receipt-80.")
@click.option("--default/--no-default", "is_default", default=None, help="Print the slips of the branch's stations.")
@click.option("--fallback", metavar="CODE", help="Printer for its slips while it is on hold or unavailable.")
@click.option("--station", "stations", multiple=True, metavar="CODE", help="Station whose slips it prints; repeatable.")
def add_command(
    printer: str,
    branch: str,
    uri: str,
    media: str,
    is_default: bool | None,
    fallback: str | None,
    stations: tuple[str, ...],
) -> None:
    """Register a printer, or change the printer CODE. The first printer of a branch is its default.

    Example: bookdrop printers add main-labels --branch main --uri socket://10.1.2.3:9100 --fallback main-slips
    """
    from tasks.printing.printer_admin import add_printer

    outcome = _change(
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
    click.echo(f"Printer {printer} {outcome}. To test it: bookdrop printers test-page {printer}")


@printers_group.command("check")
@click.argument("printer", metavar="CODE")
@json_option
def check_command(printer: str, as_json: bool) -> None:
    """Read the status of a printer. Exit code 1 if it is not ready."""
    driver, uri, _ = _open(printer)
    status = driver.status()
    if as_json:
        report = {
            "printer": printer, "uri": uri, "ready": status.ready, "words": status.description, "reasons": status.reasons,
        }  # fmt: skip
        click.echo(to_json(report))
    else:
        tracking = "reports the result of a slip" if driver.tracks_jobs else "cannot report the result of a slip"
        click.echo(f"{printer}: {status.description}  ({uri}, accepts {driver.language.upper()}, {tracking})")
    raise SystemExit(0 if status.ready else 1)


@printers_group.command("hold")
@click.argument("printer", metavar="CODE")
def hold_command(printer: str) -> None:
    """Send no slips to a printer. They wait, or its fallback prints them."""
    from tasks.printing.printer_admin import hold

    _change(lambda session: hold(session, printer))
    click.echo(f"Printer {printer} is on hold. To resume it: bookdrop printers resume {printer}")


@printers_group.command("resume")
@click.argument("printer", metavar="CODE")
def resume_command(printer: str) -> None:
    """Send slips to a printer again. The waiting ones follow within seconds, in order."""
    from tasks.printing.printer_admin import resume

    _change(lambda session: resume(session, printer))
    click.echo(f"Printer {printer} is resumed.")


@printers_group.command("test-page")
@click.argument("printer", metavar="CODE")
def test_page_command(printer: str) -> None:
    """Send a slip marked TEST straight to the printer. It belongs to no request."""
    from uuid6 import uuid7

    from schemas.print_jobs import Address, SlipContent
    from tasks.printing.printers.driver import PrinterError
    from tasks.slips.render import render_slip

    driver, uri, media = _open(printer)
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
            render_slip(page, media, driver.language, job_name=f"test-{page.job_id}"),
            job_name=f"test-{page.job_id}",
            on_first_byte=lambda: None,
        )
    except PrinterError as error:
        raise click.ClickException(f"{printer}: {error}") from None
    click.echo(f"Sent to {printer} as job {name}.")


def _open(code: str) -> "tuple[PrinterDriver, str, str]":
    """Return the driver, the URI and the medium of a registered printer."""
    from sqlalchemy import select

    from schemas.models import Printer
    from tasks.printing.printers.driver import PrinterError
    from tasks.printing.printers.factory import open_printer

    with reading() as connection:
        row = connection.execute(select(Printer.uri, Printer.media).where(Printer.code == code)).one_or_none()
    if row is None:
        raise click.ClickException(f"There is no printer {code}. Run 'bookdrop printers list' to see all.")
    try:
        return open_printer(row.uri), row.uri, row.media
    except PrinterError as error:
        raise click.ClickException(str(error)) from None


def _change(change: "Callable[[Session], Result]") -> "Result":
    from tasks.printing.printer_admin import RefusedPrinterError
    from tasks.printing.printers.driver import PrinterError

    with acting() as context:
        try:
            with context.unit_of_work() as uow:
                return change(uow.session)
        except (RefusedPrinterError, PrinterError) as error:
            raise click.ClickException(f"{error} Nothing was changed.") from None
