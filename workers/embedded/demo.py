# SPDX-License-Identifier: Apache-2.0
"""The stations of the embedded default: a prompt, a pipe of barcodes, or demo scans at three stations at once."""

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
from workers.embedded.service import STATIONS, EmbeddedService, wait_for_slips

TIMEOUT = 60.0
"""Maximum wait of the demo for replies and slips, in seconds."""
_STOP_TIMEOUT = 2.0
"""Time that a station's process has to end after Ctrl-C, in seconds."""

_COLOURS = {"returned": "green", "already_returned": "yellow", "refused": "red", "pending": "magenta"}


@dataclass(frozen=True)
class ScanResult:
    """The reply that a station showed for one scan of the demo."""

    station: str
    barcode: str
    outcome: str
    message: str


def run(embedded: EmbeddedService, stdin: TextIO) -> int:
    """Open a station's prompt on a terminal, else scan the barcodes in `stdin`, or play the demo if it is empty.

    Returns the exit code.
    """
    if stdin.isatty():
        return _run_prompt(embedded.directory, None)
    first = stdin.readline()
    if first:
        return _run_prompt(embedded.directory, _chain(first, stdin)) or _report_slips(embedded)
    return _play_demo(embedded)


def _chain(first: str, rest: Iterable[str]) -> Iterable[str]:
    yield first
    yield from rest


def _command(directory: DataDirectory, station: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    environment = {**os.environ, "BOOKDROP_CONFIG": str(directory.station_config(station))}
    return [sys.executable, "-m", "stations.cli", *arguments], environment


def _run_prompt(directory: DataDirectory, lines: Iterable[str] | None) -> int:
    command, environment = _command(directory, STATIONS[0], "desk")
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
        _end_prompt(process)
        raise


def _end_prompt(process: subprocess.Popen[str]) -> None:
    """Wait for the station's process, and end it if it still runs: TERM to this process does not reach it."""
    try:
        process.wait(_STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.terminate()  # it restores the terminal, as after Ctrl-C
        process.wait()


def _report_slips(embedded: EmbeddedService) -> int:
    left = wait_for_slips(embedded.engine, TIMEOUT)
    with embedded.engine.connect().execution_options(**READ_ONLY) as connection:
        states = Counter(connection.execute(select(PrintJob.state)).scalars())
    printed = states[PrintState.DONE] + states[PrintState.CONFIRMED]
    click.echo(f"\nSlips out: {printed} in {embedded.directory.spool}" + (f"; not out yet: {left}" if left else ""))
    return 1 if left else 0


def _play_demo(embedded: EmbeddedService) -> int:
    """Scan at three stations at once, with a repeated scan and refusals, and show the replies."""
    scans = _demo_scans(embedded)
    started: list[tuple[str, Sequence[str], subprocess.Popen[str]]] = []
    try:
        for station, barcodes in scans.items():
            command, environment = _command(
                embedded.directory, station, "scan", "--json", "--wait", str(TIMEOUT), "--", *barcodes
            )
            process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
            started.append((station, barcodes, process))
        results = [result for station, barcodes, process in started for result in _results(station, barcodes, process)]
    finally:
        for _, _, process in started:
            if process.poll() is None:
                process.terminate()
                process.wait()
    _show(results)
    code = _report_slips(embedded)
    if embedded.flower_url:
        click.echo(f"Flower, while it runs: {embedded.flower_url}   Next: run this command in a terminal, and scan.")
    return code or int(any(result.outcome == "pending" for result in results))


def _results(station: str, barcodes: Sequence[str], process: subprocess.Popen[str]) -> list[ScanResult]:
    output, _ = process.communicate(timeout=TIMEOUT * 2)
    found: list[ScanResult] = []
    for line in output.splitlines():
        reply = json.loads(line)
        outcome = str(reply.get("outcome", "pending"))
        found.append(ScanResult(station, str(reply.get("barcode") or "?"), outcome, str(reply.get("message", ""))))
    missing = len(barcodes) - len(found)
    return found + [ScanResult(station, "?", "pending", "No reply yet")] * missing


def _show(results: Sequence[ScanResult]) -> None:
    table = Table(title="Replies at the stations", title_justify="left")
    for heading in ("Station", "Barcode", "Outcome", "Message"):
        table.add_column(heading, overflow="fold")
    for result in results:
        colour = _COLOURS.get(result.outcome, "white")
        label = result.outcome.replace("_", " ").upper()
        table.add_row(result.station, result.barcode, f"[{colour}]{label}[/{colour}]", result.message)
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table)
    totals = Counter(result.outcome.replace("_", " ") for result in results)
    click.echo("   ".join(f"{outcome}: {number}" for outcome, number in sorted(totals.items())))


def _demo_scans(embedded: EmbeddedService) -> dict[str, list[str]]:
    """Barcodes for each station: loaned and never loaned items, items that two stations scan, and refusals."""
    with embedded.engine.connect().execution_options(**READ_ONLY) as connection:
        ambiguous = select(ItemBarcode.barcode).group_by(ItemBarcode.barcode).having(func.count() > 1)
        single_item = select(Item.request_id).group_by(Item.request_id).having(func.count() == 1)
        barcodes = (
            select(ItemBarcode.barcode)
            .join(Item, Item.id == ItemBarcode.item_id)
            .join(Request, Request.id == Item.request_id)
            .where(Item.returned_at.is_(None), Request.id.in_(single_item), ItemBarcode.barcode.not_in(ambiguous))
            .order_by(Item.id)
        )

        def pick(number: int, *statuses: RequestStatus) -> list[str]:
            return list(connection.execute(barcodes.where(Request.status.in_(statuses)).limit(number)).scalars())

        on_loan = Item.id.in_(select(Loan.item_id).where(Loan.discharged_at.is_(None), ~Loan.claimed_returned))
        loaned = list(
            connection.execute(barcodes.where(Request.status == RequestStatus.LOANED, on_loan).limit(12)).scalars()
        )
        never_loaned = pick(3, RequestStatus.RECEIVED)
        overdue_or_recalled = pick(1, RequestStatus.OVERDUE) + pick(1, RequestStatus.RECALLED)
        refused = pick(1, RequestStatus.LOST) + pick(1, *(CLOSED - {RequestStatus.RETURNED_TO_PARTNER}))
        local = list(
            connection.execute(
                select(ItemBarcode.barcode)
                .join(Item, Item.id == ItemBarcode.item_id)
                .where(Item.request_id.is_(None), ItemBarcode.barcode.not_in(ambiguous))
                .limit(1)
            ).scalars()
        )
    returnable = loaned + never_loaned + overdue_or_recalled
    scans = {station: returnable[number :: len(STATIONS)] for number, station in enumerate(STATIONS)}
    first, second, third = STATIONS
    scans[second] = [*scans[second], *scans[first][:2]]  # the second station repeats two scans of the first
    scans[first] = [*scans[first], *local, "NO-SUCH-BARCODE"]
    scans[third] = [*scans[third], *refused]
    return scans
