# SPDX-License-Identifier: Apache-2.0
"""`bookdrop import`, `bookdrop add` and `bookdrop demo-data`: write data into the database."""

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from workers.commands.options import json_option

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tasks.data_import.importer import ImportReport

SOME_REFUSED, INVALID_FILE = 1, 2
KIND_NAMES = ("branches", "printers", "stations", "partners", "patrons", "requests", "items", "loans")
MAX_SHOWN = 20
"""Number of refused rows that the text report lists."""


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--kind", type=click.Choice(KIND_NAMES), help="Kind of the rows, if the columns do not identify it.")
@click.option(
    "--mapping", type=click.Path(path_type=Path), help="TOML file that maps another system's columns and values."
)
@click.option("--strict", is_flag=True, help="Import nothing if a row is refused.")
@click.option("--dry-run", is_flag=True, help="Show the result; import nothing.")
@json_option
def import_command(
    file: Path, kind: str | None, mapping: Path | None, strict: bool, dry_run: bool, as_json: bool
) -> None:
    """Import FILE: branches, printers, stations, partners, patrons, requests, items or loans.

    CSV (comma, semicolon or tab; UTF-8) or JSON Lines. Each row is inserted, or updates the stored one, so importing
    the same file again changes nothing. Each refused row is reported with its line and reason; the others are imported.

    \b
    Import in this order, because each kind refers to those before it:
      branches printers stations partners patrons requests items loans

    \b
    Example: bookdrop import partners.csv
             bookdrop import export.csv --kind requests --mapping alma.toml --dry-run

    Exit codes: 0 all rows imported; 1 some were refused; 2 the file or the mapping is invalid.
    """
    from datetime import UTC, datetime

    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.orm import sessionmaker

    from schemas.database import open_engine
    from tasks.data_import.importer import import_rows
    from tasks.data_import.readers import ColumnMapping, ImportFileError, read, read_mapping
    from workers.commands.sessions import cause
    from workers.settings import WorkerSettings

    engine = open_engine(WorkerSettings.load().database_url)
    try:
        rows = read(file, kind, read_mapping(mapping) if mapping else ColumnMapping())
        with _progress(file) as progress:
            report = import_rows(
                rows, sessionmaker(engine), datetime.now(UTC), strict=strict, dry_run=dry_run, progress=progress
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
    if as_json:
        refused = [{"line": row.line, "reason": row.reason} for row in report.refused]
        counts = {"added": report.added, "changed": report.changed, "unchanged": report.unchanged}
        click.echo(json.dumps({**counts, "kept": report.committed, "refused": refused}, indent=2, ensure_ascii=False))
        return
    for row in report.refused[:MAX_SHOWN]:
        click.echo(f"line {row.line}: {row.reason}", err=True)
    if len(report.refused) > MAX_SHOWN:
        click.echo(f"... and {len(report.refused) - MAX_SHOWN} more; --json lists all.", err=True)
    summary = (
        f"{report.added} added, {report.changed} changed, {report.unchanged} unchanged, {len(report.refused)} refused"
    )
    if report.committed:
        click.echo(f"{summary}.")
    elif dry_run:
        click.echo(f"Dry run: {summary}. Nothing was imported.")
    else:
        click.echo(
            f"Nothing was imported, because of --strict: {summary}. Correct the rows above and run the import again."
        )


@click.command("add")
@click.argument("kind", type=click.Choice(KIND_NAMES))
@click.argument("values", nargs=-1, required=True, metavar="COLUMN=VALUE...")
@json_option
def add_command(kind: str, values: tuple[str, ...], as_json: bool) -> None:
    """Add or change one record of KIND. The columns are those of an import.

    A station without a key gets a generated one, which is shown once.

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

    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.orm import sessionmaker

    from schemas.database import open_engine
    from tasks.data_import.importer import import_rows
    from tasks.data_import.readers import ColumnMapping, parse_row
    from tasks.data_import.row_models import KINDS
    from workers.commands.sessions import UNCHANGED, cause
    from workers.settings import WorkerSettings

    record: dict[str, str] = {}
    for value in values:
        column, equals, text = value.partition("=")
        if not equals or column not in KINDS[kind].model_fields:
            known = ", ".join(KINDS[kind].model_fields)
            raise click.UsageError(f"{value!r} is not a COLUMN=VALUE of {kind}. Columns: {known}. Nothing was changed.")
        record[column] = text
    key = secrets.token_hex(32) if kind == "stations" and "key" not in record else None
    engine = open_engine(WorkerSettings.load().database_url)
    try:
        row = parse_row(kind, ColumnMapping(), 1, record | ({"key": key} if key else {}))
        report = import_rows([row], sessionmaker(engine), datetime.now(UTC))
    except SQLAlchemyError as error:
        raise click.ClickException(f"The database cannot be written: {cause(error)}\n{UNCHANGED}") from None
    finally:
        engine.dispose()
    if report.refused:
        raise click.ClickException(f"{report.refused[0].reason}. Nothing was changed.")
    outcome = "Added" if report.added else "Changed" if report.changed else "There already"
    if as_json:
        click.echo(
            json.dumps({"outcome": outcome.lower().replace(" ", "_"), "kind": kind} | ({"key": key} if key else {}))
        )
        return
    click.echo(f"{outcome}.")
    if key:
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
