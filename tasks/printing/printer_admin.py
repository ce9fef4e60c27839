# SPDX-License-Identifier: Apache-2.0
"""Administration of printers: register, change, hold, resume."""

import re
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from schemas.models import Branch, Printer, Station
from schemas.topology import CODE_PATTERN
from tasks.printing.printers.factory import open_printer
from tasks.slips.media import MEDIA


class RefusedPrinterError(Exception):
    """The change is not possible. The text contains the cause and the next step."""


def add_printer(
    session: Session,
    *,
    code: str,
    branch: str,
    uri: str,
    media: str = "label-4x6",
    is_default: bool | None = None,
    fallback: str | None = None,
    stations: tuple[str, ...] = (),
) -> str:
    """Register a printer, or change the printer with that code. Returns `added` or `changed`.

    The first printer of a branch becomes its default. Raises `RefusedPrinterError`, and `PrinterError` for an invalid
    URI.
    """
    _check(code, uri, media)
    branch_id = session.execute(select(Branch.id).where(Branch.code == branch)).scalar_one_or_none()
    if branch_id is None:
        raise RefusedPrinterError(f"There is no branch {branch}.")
    printer = session.scalars(select(Printer).where(Printer.code == code)).one_or_none()
    is_new = printer is None
    if printer is None:
        printer = Printer(code=code, branch_id=branch_id, is_default=False, on_hold=False, failures=0)
        session.add(printer)
    printer.branch_id, printer.uri, printer.media = branch_id, uri, media
    printer.failures, printer.retry_at, printer.trouble = 0, None, None
    printer.fallback_id = lock_printer(session, fallback).id if fallback is not None else printer.fallback_id
    session.flush()
    if printer.fallback_id == printer.id:
        raise RefusedPrinterError("A printer cannot be its own fallback.")
    others = session.execute(
        select(Printer.id).where(Printer.branch_id == branch_id, Printer.is_default, Printer.id != printer.id)
    ).first()
    if is_default or (is_default is None and others is None):
        session.execute(update(Printer).where(Printer.branch_id == branch_id).values(is_default=False))
        printer.is_default = True
    elif is_default is False:
        printer.is_default = False
    for station in stations:
        changed: Any = session.execute(update(Station).where(Station.code == station).values(printer_id=printer.id))
        if changed.rowcount != 1:
            raise RefusedPrinterError(f"There is no station {station}.")
    session.flush()
    return "added" if is_new else "changed"


def _check(code: str, uri: str, media: str) -> None:
    if not re.fullmatch(CODE_PATTERN, code) or len(code) > 40:  # noqa: PLR2004 - as long as the column
        raise RefusedPrinterError(f"{code} is not a printer's code: use lower case letters, digits and single hyphens.")
    driver = open_printer(uri)
    if media not in MEDIA:
        raise RefusedPrinterError(f"No slip can be laid out for {media}. Known: {', '.join(MEDIA)}.")
    if driver.language == "zpl" and not MEDIA[media].is_label:
        labels = ", ".join(name for name, medium in MEDIA.items() if medium.is_label)
        raise RefusedPrinterError(f"A label printer has no {media}. Known: {labels}.")


def lock_printer(session: Session, code: str) -> Printer:
    """Read and lock the printer with that code. Raises `RefusedPrinterError` when there is none."""
    printer = session.scalars(select(Printer).where(Printer.code == code).with_for_update()).one_or_none()
    if printer is None:
        raise RefusedPrinterError(f"There is no printer {code}. 'bookdrop printers list' names them.")
    return printer


def hold(session: Session, code: str) -> None:
    """Send no slips to the printer. They wait, or its fallback prints them."""
    lock_printer(session, code).on_hold = True


def resume(session: Session, code: str) -> None:
    """Send slips to the printer again, without waiting for its backoff."""
    printer = lock_printer(session, code)
    printer.on_hold = False
    printer.failures, printer.retry_at, printer.trouble = 0, None, None
