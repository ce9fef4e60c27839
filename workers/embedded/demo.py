# SPDX-License-Identifier: Apache-2.0
"""The desks of the embedded default: a prompt, a pipe of barcodes, or the demo scans of three stations at once."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TextIO

import click
from rich.console import Console
from rich.table import Table
from sqlalchemy import func, select

from schemas.database import READ_ONLY
from schemas.models import Item, ItemBarcode, Loan, PrintJob, Request
from schemas.print_jobs import PrintState
from schemas.request_status import CLOSED, RequestStatus
from workers.embedded.data_dir import DataDirectory
from workers.embedded.service import STATIONS, Running, wait_for_slips

PATIENCE = 60.0
"""How long the demo waits for answers and slips, in seconds."""

_COLOURS = {"returned": "green", "already_returned": "yellow", "refused": "red", "pending": "magenta"}


@dataclass(frozen=True)
class Answer:
    """What a desk showed for one scan of the demo."""

    station: str
    barcode: str
    outcome: str
    message: str


def play(parts: Running, stdin: TextIO) -> int:
    """Give the person at this terminal a desk; or read barcodes from `stdin`; or play the demo. Gives the exit code."""
    if stdin.isatty():
        return _desk(parts.home, None)
    first = stdin.readline()
    if first:
        return _desk(parts.home, _chain(first, stdin)) or _slips(parts)
    return _demo(parts)


def _chain(first: str, rest: Iterable[str]) -> Iterable[str]:
    yield first
    yield from rest


def _command(home: DataDirectory, station: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    environment = {**os.environ, "BOOKDROP_CONFIG": str(home.station_config(station))}
    return [sys.executable, "-m", "stations.cli", *arguments], environment


def _desk(home: DataDirectory, lines: Iterable[str] | None) -> int:
    command, environment = _command(home, STATIONS[0], "desk")
    process = subprocess.Popen(
        command, env=environment, stdin=None if lines is None else subprocess.PIPE, text=True, bufsize=1
    )
    try:
        if lines is not None and process.stdin is not None:
            for line in lines:
                process.stdin.write(line)
            process.stdin.close()
        return process.wait()
    except BrokenPipeError:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()
        raise


def _slips(parts: Running) -> int:
    left = wait_for_slips(parts.engine, PATIENCE)
    with parts.engine.connect().execution_options(**READ_ONLY) as connection:
        states = Counter(connection.execute(select(PrintJob.state)).scalars())
    out = states[PrintState.DONE] + states[PrintState.CONFIRMED]
    click.echo(f"\nSlips out: {out} in {parts.home.spool}" + (f"; not out yet: {left}" if left else ""))
    return 1 if left else 0


def _demo(parts: Running) -> int:
    """Three stations scan at once, with a repeat and a refusal among them; show what each desk showed."""
    scans = _demo_scans(parts)
    running = []
    for station, barcodes in scans.items():
        command, environment = _command(parts.home, station, "scan", "--json", "--wait", str(PATIENCE), "--", *barcodes)
        running.append(
            (station, barcodes, subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
        )
    answers = [answer for station, barcodes, process in running for answer in _answers(station, barcodes, process)]
    code = _slips_after(parts, answers)
    if parts.flower:
        click.echo(f"Flower, while it runs: {parts.flower}   Next: run it in a terminal, and scan yourself.")
    return code


def _slips_after(parts: Running, answers: Sequence[Answer]) -> int:
    _show(answers)
    code = _slips(parts)
    return code or int(any(answer.outcome == "pending" for answer in answers))


def _answers(station: str, barcodes: Sequence[str], process: subprocess.Popen[str]) -> list[Answer]:
    output, _ = process.communicate(timeout=PATIENCE * 2)
    found: list[Answer] = []
    for line in output.splitlines():
        reply = json.loads(line)
        outcome = str(reply.get("outcome", "pending"))
        found.append(Answer(station, str(reply.get("barcode") or "?"), outcome, str(reply.get("message", ""))))
    missing = len(barcodes) - len(found)
    return found + [Answer(station, "?", "pending", "No answer yet")] * missing


def _show(answers: Sequence[Answer]) -> None:
    table = Table(title="What the desks showed", title_justify="left")
    for heading in ("Station", "Barcode", "Outcome", "Words on the screen"):
        table.add_column(heading, overflow="fold")
    for answer in answers:
        colour = _COLOURS.get(answer.outcome, "white")
        words = answer.outcome.replace("_", " ").upper()
        table.add_row(answer.station, answer.barcode, f"[{colour}]{words}[/{colour}]", answer.message)
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table)
    totals = Counter(answer.outcome.replace("_", " ") for answer in answers)
    click.echo("   ".join(f"{outcome}: {number}" for outcome, number in sorted(totals.items())))


def _demo_scans(parts: Running) -> dict[str, list[str]]:
    """Barcodes for each station: loaned and never loaned items, one that another desk scans too, and refusals."""
    with parts.engine.connect().execution_options(**READ_ONLY) as connection:
        several = select(ItemBarcode.barcode).group_by(ItemBarcode.barcode).having(func.count() > 1)
        single = select(Item.request_id).group_by(Item.request_id).having(func.count() == 1)
        barcodes = (
            select(ItemBarcode.barcode)
            .join(Item, Item.id == ItemBarcode.item_id)
            .join(Request, Request.id == Item.request_id)
            .where(Item.returned_at.is_(None), Request.id.in_(single), ItemBarcode.barcode.not_in(several))
            .order_by(Item.id)
        )

        def pick(number: int, *statuses: RequestStatus) -> list[str]:
            return list(connection.execute(barcodes.where(Request.status.in_(statuses)).limit(number)).scalars())

        on_loan = Item.id.in_(select(Loan.item_id).where(Loan.discharged_at.is_(None), ~Loan.claimed_returned))
        loaned = list(
            connection.execute(barcodes.where(Request.status == RequestStatus.LOANED, on_loan).limit(12)).scalars()
        )
        others = pick(3, RequestStatus.RECEIVED) + pick(1, RequestStatus.OVERDUE) + pick(1, RequestStatus.RECALLED)
        refused = pick(1, RequestStatus.LOST) + pick(1, *(CLOSED - {RequestStatus.RETURNED_TO_PARTNER}))
        ours = list(
            connection.execute(
                select(ItemBarcode.barcode)
                .join(Item, Item.id == ItemBarcode.item_id)
                .where(Item.request_id.is_(None), ItemBarcode.barcode.not_in(several))
                .limit(1)
            ).scalars()
        )
    everything = loaned + others
    shared_out = {station: everything[number :: len(STATIONS)] for number, station in enumerate(STATIONS)}
    first, second, third = STATIONS
    shared_out[second] = [*shared_out[second], *shared_out[first][:2]]  # a second desk scans two of the first one's
    shared_out[first] = [*shared_out[first], *ours, "NO-SUCH-BARCODE"]
    shared_out[third] = [*shared_out[third], *refused]
    return shared_out
