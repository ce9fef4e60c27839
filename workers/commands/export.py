# SPDX-License-Identifier: Apache-2.0
"""`bookdrop export`: what happened here, for another system, as CSV or JSON Lines. The output contains no patron."""

import csv
import os
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from workers.commands.json_output import to_json
from workers.commands.options import spreadsheet_safe
from workers.commands.sessions import reading

if TYPE_CHECKING:
    from tasks.requests.export import ExportFilter


@click.group("export")
def export_group() -> None:
    """Export data for other systems."""


@export_group.command("returns")
@click.option("--since", metavar="CURSOR|TIME", help="A cursor of an earlier export, or a time such as 2026-11-28 or"
              " 2026-11-28T18:00; without a zone, local time. Default: all.")  # fmt: skip
@click.option("--cursor-file", type=click.Path(dir_okay=False, path_type=Path),
              help="Continue after the cursor in this file, and write the new one when all rows are written.")  # fmt: skip
@click.option("--csv", "form", flag_value="csv", default=True, help="CSV with a header; the default.")
@click.option("--json", "form", flag_value="json", help="JSON Lines: one object for each row.")
def returns_command(since: str | None, cursor_file: Path | None, form: str) -> None:
    """Write every discharge, check-in, Return, undo and completion to standard output, oldest first.

    Each row has a cursor. The next export continues after the last one, so together they have each row once. An event
    appears some minutes after its scan, when no worker can still record an earlier one.

    \b
    Example: bookdrop export returns --since 2026-11-01 > november.csv
             bookdrop export returns --json --cursor-file /var/lib/library/bookdrop.cursor | send-to-library-system

    Exit codes: 0 all rows written; 1 the database cannot be read, or the output failed: the cursor file is unchanged.
    """
    from tasks.requests.export import export_events

    wanted = _filter(since, cursor_file)
    last = wanted.after
    with reading() as connection:
        write = _write_json if form == "json" else _write_csv
        for cursor in write(export_events(connection, wanted)):
            last = cursor
    sys.stdout.flush()
    if last == 0:
        click.echo("There is nothing to export yet.", err=True)
        return
    if cursor_file is not None:
        _store_cursor(cursor_file, last)
    click.echo(f"Next: --since {last}", err=True)


def _filter(since: str | None, cursor_file: Path | None) -> "ExportFilter":
    from tasks.requests.export import ExportFilter, settled_before
    from workers.settings import WorkerSettings

    if since is not None and cursor_file is not None and cursor_file.exists():
        raise click.UsageError(f"{cursor_file} has a cursor already: leave out --since, or delete the file.")
    text = since if since is not None else _read_cursor(cursor_file)
    limit = timedelta(seconds=WorkerSettings.load().redis_visibility_timeout_seconds / 2)
    settled = settled_before(datetime.now(UTC), limit)
    if text is None:
        return ExportFilter(recorded_before=settled)
    if re.fullmatch("[0-9]{1,18}", text):
        return ExportFilter(after=int(text), recorded_before=settled)
    try:
        moment = datetime.fromisoformat("" if text.isdigit() else text).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        raise click.UsageError(
            f"{text[:60]!r} is neither a cursor nor a time such as 2026-11-28T18:00. Nothing was written."
        ) from None
    return ExportFilter(recorded_from=moment, recorded_before=settled)


def _write_json(rows: Iterator[dict[str, Any]]) -> Iterator[int]:
    for row in rows:
        sys.stdout.write(to_json(row, indent=None) + "\n")
        yield row["cursor"]


def _write_csv(rows: Iterator[dict[str, Any]]) -> Iterator[int]:
    from tasks.requests.export import COLUMNS

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        cells = row | {"barcodes": "|".join(row["barcodes"])}
        writer.writerow([spreadsheet_safe(cells[name]) for name in COLUMNS])
        yield row["cursor"]


def _read_cursor(file: Path | None) -> str | None:
    if file is None or not file.exists():
        return None
    try:
        return file.read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"The cursor file {file} cannot be read: {error}. Nothing was written.") from None


def _store_cursor(file: Path, cursor: int) -> None:
    """Replace the file in one step, so that a stop leaves the old cursor or the new one."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        temporary.write_text(f"{cursor}\n", encoding="ascii")
        temporary.replace(file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise click.ClickException(
            f"All rows were written, but not the cursor file {file}: {error}. The next export starts after the old cursor."
        ) from None
