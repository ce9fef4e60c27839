# SPDX-License-Identifier: Apache-2.0
"""`bookdrop import`, `bookdrop add` and `bookdrop demo-data`: write data into the database."""

import json
import sys
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from workers.commands.json_output import to_json
from workers.commands.options import json_option

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tasks.data_import.report import ImportReport, RowCounts

SOME_REFUSED, INVALID_FILE = 1, 2
KIND_NAMES = ("branches", "printers", "stations", "partners", "patrons", "requests", "items", "loans")
RESTRICTED_KIND_NAMES = ("stations", "printers")
ENCODINGS = ("utf-8", "utf-16", "windows-1250", "windows-1252", "iso-8859-1", "iso-8859-2", "iso-8859-15")
MAX_SHOWN = 20
"""Number of refused rows that the text report lists."""


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--kind", type=click.Choice(KIND_NAMES), help="Kind of the rows. Rows of another kind are refused.")
@click.option(
    "--allow",
    "allowed",
    type=click.Choice(RESTRICTED_KIND_NAMES),
    multiple=True,
    help="Without --kind, import rows of this kind as well. Repeatable.",
)
@click.option(
    "--rotate-keys",
    is_flag=True,
    help="Let a row change the key of a stored station. Every earlier key of it ends at once.",
)
@click.option(
    "--mapping",
    metavar="FILE|NAME",
    type=click.Path(path_type=Path),
    help="TOML file that maps another system's columns and values, or the name of a mapping of bookdrop: alma.",
)
@click.option(
    "--set",
    "constants",
    metavar="COLUMN=VALUE",
    multiple=True,
    help="Value of a column that the file does not have. Repeatable.",
)
@click.option("--date-format", metavar="FORMAT", help="Format of dates that are not ISO 8601, for example %d/%m/%Y.")
@click.option(
    "--encoding",
    type=click.Choice(ENCODINGS),
    help="Encoding of the file. Default: UTF-8, or UTF-16 with a byte order mark.",
)
@click.option("--strict", is_flag=True, help="Import nothing if a row is refused.")
@click.option("--dry-run", is_flag=True, help="Show the result; import nothing.")
@json_option
def import_command(
    file: Path,
    kind: str | None,
    allowed: tuple[str, ...],
    rotate_keys: bool,
    mapping: Path | None,
    constants: tuple[str, ...],
    date_format: str | None,
    encoding: str | None,
    strict: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Import FILE: branches, printers, stations, partners, patrons, requests, items or loans.

    CSV (comma, semicolon or tab), JSON Lines or a JSON array. Each row is inserted, or updates the stored one in the
    columns that it names, so importing the same file again changes nothing. Each refused row is reported with its line and
    reason; the others are imported. A file with damage that may span rows is refused as a whole.

    With --kind every row is of that kind. Without it the columns identify the kind, or a column `kind` names the kind
    of each row; stations and printers then need --allow.

    A row that is older than what happened here does not undo it. It is unchanged, and a line under its kind has the
    number of such rows, for example those already returned here.

    \b
    Import in this order, because each kind refers to those before it:
      branches printers stations partners patrons requests items loans

    \b
    Example: bookdrop import partners.csv
             bookdrop import export.csv --kind requests --mapping alma --set branch=main --dry-run

    Exit codes: 0 all rows imported; 1 some were refused; 2 the file or the mapping is invalid.
    """
    from datetime import UTC, datetime

    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.orm import sessionmaker

    from schemas.database import open_engine
    from tasks.data_import.import_errors import ImportFileError
    from tasks.data_import.importer import import_rows
    from tasks.data_import.mapping import ColumnMapping
    from tasks.data_import.mapping_files import adjust, read_mapping
    from tasks.data_import.readers import read
    from workers.commands.sessions import cause
    from workers.settings import WorkerSettings

    engine = open_engine(WorkerSettings.load().database_url)
    try:
        translation = read_mapping(mapping, kind) if mapping else ColumnMapping()
        rows = read(file, kind, adjust(translation, kind, constants, date_format), allowed, encoding)
        with _progress(file) as progress:
            report = import_rows(
                rows,
                sessionmaker(engine),
                datetime.now(UTC),
                strict=strict,
                dry_run=dry_run,
                rotate_keys=rotate_keys,
                progress=progress,
            )
    except ImportFileError as error:
        click.echo(f"Error: {error}", err=True)
        raise SystemExit(INVALID_FILE) from None
    except SQLAlchemyError as error:
        raise click.ClickException(
            f"The database cannot be written: {cause(error)}\nCommitted batches are kept. Run the import again: it skips"
            " their rows. Run 'bookdrop doctor' to find the cause."
        ) from None
    finally:
        engine.dispose()
    _show(report, dry_run=dry_run, as_json=as_json)
    raise SystemExit(SOME_REFUSED if report.refused else 0)


@contextmanager
def _progress(file: Path) -> "Iterator[Callable[[int], None]]":
    """Show the number of processed rows, on a terminal."""
    if not sys.stderr.isatty():
        yield lambda _rows: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn(f"{file.name}: {{task.completed:,}} rows"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("import", total=None)
        yield lambda rows: bar.advance(task, rows)


def _show(report: "ImportReport", *, dry_run: bool, as_json: bool) -> None:
    total = report.total
    if as_json:
        refused = [{"line": row.line, "kind": row.kind, "reason": row.reason} for row in report.refused]
        counts = {"read": total.read, "added": total.added, "changed": total.changed, "unchanged": total.unchanged}
        by_kind = {kind: asdict(counts) for kind, counts in report.by_kind.items()}
        notes = [
            {"kind": kind, "note": note.value, "rows": rows, "text": note.text}
            for (kind, note), rows in sorted(report.notes.items())
        ]
        shortened = [{"line": row.line, "kind": row.row.kind, "columns": row.shortened} for row in report.shortened]
        content = {**counts, "kept": report.committed, "by_kind": by_kind, "notes": notes, "refused": refused}
        content["shortened"] = shortened
        click.echo(to_json(content))
        return
    for row in report.refused[:MAX_SHOWN]:
        click.echo(f"line {row.line}: {row.reason}", err=True)
    if len(report.refused) > MAX_SHOWN:
        click.echo(f"... and {len(report.refused) - MAX_SHOWN} more; --json lists all.", err=True)
    _show_shortened(report)
    for kind, of_kind in report.by_kind.items():
        click.echo(f"{kind}: {_counts(of_kind)}")
        for (noted_kind, note), rows in sorted(report.notes.items()):
            if noted_kind == kind:
                click.echo(f"  {rows} {'row' if rows == 1 else 'rows'}: {note.text}")
    summary = f"{total.read} rows: {_counts(total)}"
    if report.committed:
        click.echo(f"{summary}.")
    elif dry_run:
        click.echo(f"Dry run. {summary}. Nothing was imported.")
    else:
        click.echo(
            f"Nothing was imported, because of --strict. {summary}. Correct the rows above and run the import again."
        )


def _show_shortened(report: "ImportReport") -> None:
    for row in report.shortened[:MAX_SHOWN]:
        click.echo(f"line {row.line}: {', '.join(row.shortened)} shortened, because the text is too long", err=True)
    if len(report.shortened) > MAX_SHOWN:
        click.echo(f"... {len(report.shortened)} rows have a shortened text; --json lists all.", err=True)


def _counts(counts: "RowCounts") -> str:
    return f"{counts.added} added, {counts.changed} changed, {counts.unchanged} unchanged, {counts.refused} refused"


@click.command("add")
@click.argument("kind", type=click.Choice(KIND_NAMES))
@click.argument("values", nargs=-1, required=True, metavar="COLUMN=VALUE...")
@click.option(
    "--rotate-keys",
    is_flag=True,
    help="Change the key of a stored station, to KEY or a generated one. Every earlier key ends at once.",
)
@json_option
def add_command(kind: str, values: tuple[str, ...], rotate_keys: bool, as_json: bool) -> None:
    """Add or change one record of KIND. The columns are those of an import.

    A stored record changes only in the columns that are named; an empty value sets the column's default. A new station
    without a key gets a generated one, which is shown once. 'bookdrop stations rotate-key' gives a station another key
    while the previous one is still valid.

    \b
    bookdrop add branches code=main name='Main Library' library='Our Public Library' address='1 Home Street|Hometown'
    bookdrop add printers code=main-slips branch=main uri=spool:///var/spool/bookdrop is_default=yes
    bookdrop add stations code=main-desk-1 branch=main
    bookdrop add partners code=XX-RUL name='Riverside University Library' delivery_code=RUL
    bookdrop add patrons number=P000001 name='Test Patron'
    bookdrop add requests external_id=BR-1 partner=XX-RUL branch=main status=request_sent title='A book' patron=P000001

    Exit codes: 0 added, changed or unchanged; 1 refused; 2 usage error.
    """
    import secrets
    from datetime import UTC, datetime

    from sqlalchemy import select
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.orm import sessionmaker

    from schemas.database import open_engine
    from schemas.models import Station
    from tasks.data_import.importer import import_rows
    from tasks.data_import.mapping import ColumnMapping
    from tasks.data_import.row_models import KINDS
    from tasks.data_import.validation import parse_row
    from workers.commands.sessions import UNCHANGED, cause
    from workers.settings import WorkerSettings

    record: dict[str, str] = {}
    for value in values:
        column, equals, text = value.partition("=")
        if not equals or column not in KINDS[kind].model_fields:
            known = ", ".join(KINDS[kind].model_fields)
            raise click.UsageError(f"{value!r} is not a COLUMN=VALUE of {kind}. Columns: {known}. Nothing was changed.")
        record[column] = text
    key = None
    engine = open_engine(WorkerSettings.load().database_url)
    sessions = sessionmaker(engine)
    try:
        if kind == "stations" and "key" not in record:
            with sessions() as session:
                stored = session.execute(select(Station.id).where(Station.code == record.get("code", "").strip()))
                if rotate_keys or stored.first() is None:
                    key = secrets.token_hex(32)
        row = parse_row(kind, ColumnMapping(), 1, record | ({"key": key} if key else {}))
        report = import_rows([row], sessions, datetime.now(UTC), rotate_keys=rotate_keys)
    except SQLAlchemyError as error:
        raise click.ClickException(f"The database cannot be written: {cause(error)}\n{UNCHANGED}") from None
    finally:
        engine.dispose()
    if report.refused:
        raise click.ClickException(f"{report.refused[0].reason}. Nothing was changed.")
    outcome = "Added" if report.total.added else "Changed" if report.total.changed else "There already"
    if as_json:
        click.echo(
            json.dumps({"outcome": outcome.lower().replace(" ", "_"), "kind": kind} | ({"key": key} if key else {}))
        )
        return
    click.echo(f"{outcome}.")
    for short in report.shortened:
        click.echo(f"Shortened, because the text is too long: {', '.join(short.shortened)}.", err=True)
    if key:
        click.echo("Set BOOKDROP_STATION_REQUIRE_SIGNED_REPLIES=true on the station: it ignores forged replies.")
        click.echo(f"Its key (BOOKDROP_STATION_KEY), shown only now: {key}")


@click.command("demo-data")
@click.option("--spool", type=click.Path(file_okay=False, path_type=Path), default=Path("slips"), show_default=True,
              help="Folder into which the demo's printers write slips.")  # fmt: skip
@click.option("--seed", default=1, show_default=True, help="Seed of the generated data.")
def demo_data_command(spool: Path, seed: int) -> None:
    """Fill an empty database with demo data: branches, stations, lenders, requests in every status.

    The lenders are real libraries; patrons and requests are invented.
    """
    import secrets
    from datetime import UTC, datetime

    from sqlalchemy import func, select
    from sqlalchemy.orm import Session

    from schemas.database import open_engine
    from schemas.migration import migrate
    from schemas.models import Request
    from tasks.data_import.demo import is_empty, load_demo
    from workers.settings import WorkerSettings

    keys = {code: secrets.token_hex(32) for code in ("main-desk-1", "main-desk-2", "north-desk-1")}
    engine = open_engine(WorkerSettings.load().database_url)
    try:
        migrate(engine)
        with Session(engine) as session:
            if not is_empty(session):
                raise click.ClickException(
                    "This database is not empty. Nothing was changed. Demo data needs a separate database:"
                    " set BOOKDROP_DATABASE_URL."
                )
            load_demo(session, seed=seed, now=datetime.now(UTC), spool_dir=spool.resolve(), station_keys=keys)
            session.commit()
            number = session.execute(select(func.count()).select_from(Request)).scalar_one()
    finally:
        engine.dispose()
    click.echo(f"{number} requests in all statuses. Slips are written to {spool.resolve()}.")
    click.echo("Stations and their keys (BOOKDROP_STATION_CODE, BOOKDROP_STATION_KEY):")
    for code, key in keys.items():
        click.echo(f"  {code:<14}{key}")
