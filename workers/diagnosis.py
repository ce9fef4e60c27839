# SPDX-License-Identifier: Apache-2.0
"""What a Return needs, looked at from outside: each part's state in words, and what to do about it."""

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import redis
from sqlalchemy import Engine, func, select, text
from sqlalchemy.exc import SQLAlchemyError

from schemas.configuration import ConfigurationError, config_file
from schemas.models import Printer, Station
from schemas.storage import READ_ONLY, open_engine, revisions
from tasks.printing.printers.driver import PrinterError
from tasks.printing.printers.opening import open_printer
from workers import context
from workers.settings import WorkerSettings

CLOCK_TOLERANCE_SECONDS = 5.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    part: str
    good: bool
    words: str
    advice: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def diagnose() -> list[Finding]:
    """Look at everything, in the order in which it must be mended."""
    try:
        settings = WorkerSettings.load()
        source = config_file()
    except ConfigurationError as error:
        return [
            Finding("settings", good=False, words=str(error), advice="Correct it, then run 'bookdrop doctor' again.")
        ]
    findings = [Finding("settings", good=True, words=f"from {source or 'the environment and defaults'}")]
    engine = open_engine(settings.database_url)
    try:
        findings += _guarded(
            "database", lambda: _database(engine), "Check BOOKDROP_DATABASE_URL and that the server runs."
        )
    finally:
        engine.dispose()
    findings += _guarded("broker", lambda: _broker(settings), "Check BOOKDROP_BROKER_URL and that the server runs.")
    return findings


def _guarded(part: str, look: Callable[[], Iterator[Finding]], advice: str) -> list[Finding]:
    found: list[Finding] = []
    try:
        found.extend(look())
    except SQLAlchemyError as error:
        found.append(Finding(part, good=False, words=str(getattr(error, "orig", error)).strip(), advice=advice))
    except Exception as error:  # noqa: BLE001 - whatever a driver raises is the finding
        found.append(Finding(part, good=False, words=f"{type(error).__name__}: {error}", advice=advice))
    return found


def _database(engine: Engine) -> Iterator[Finding]:
    file = engine.url.database
    if engine.dialect.name == "sqlite" and file and not Path(file).exists():
        yield Finding("database", good=False, words=f"there is no file {file}", advice="Run 'bookdrop migrate'.")
        return
    current, wanted = revisions(engine)
    yield Finding("database", good=True, words=f"{engine.dialect.name} answers")
    yield Finding(
        "migrations",
        good=current == wanted,
        words=f"tables at {current or 'nothing'}, wanted {wanted}",
        advice="" if current == wanted else "Run 'bookdrop migrate'.",
    )
    if current != wanted:
        return
    with engine.connect().execution_options(**READ_ONLY) as connection:
        if engine.dialect.name == "postgresql":
            theirs = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
            drift = abs((theirs - context.utc_now()).total_seconds())
            yield Finding(
                "clock",
                good=drift <= CLOCK_TOLERANCE_SECONDS,
                words=f"{drift:.1f} s from the database's",
                advice="" if drift <= CLOCK_TOLERANCE_SECONDS else "Let both machines keep their time by NTP.",
            )
        stations = connection.execute(select(func.count()).select_from(Station).where(Station.active)).scalar_one()
        yield Finding(
            "stations",
            good=stations > 0,
            words=f"{stations} active",
            advice="" if stations else "Import stations, each with its key: 'bookdrop import --kind stations FILE'.",
        )
        yield from map(_printer, connection.execute(select(Printer.code, Printer.uri, Printer.on_hold)).all())


def _printer(row: Any) -> Finding:
    where = urlsplit(row.uri)
    if row.on_hold:
        return Finding(
            "printer", good=False, words=f"{row.code} is on hold", advice="Its slips wait until it is resumed."
        )
    if where.scheme != "spool":
        return _asked(row)
    folder = Path(where.path)
    # The first slip makes the folder, so the nearest one that exists must let us.
    nearest = next(parent for parent in (folder, *folder.parents) if parent.exists())
    good = nearest.is_dir() and os.access(nearest, os.W_OK)
    return Finding(
        "printer",
        good=good,
        words=f"{row.code} writes to {folder}",
        advice="" if good else f"Let the workers' user write to {nearest}.",
    )


def _asked(row: Any) -> Finding:
    """What a printer says of itself; one that cannot be reached says nothing."""
    try:
        status = open_printer(row.uri).status()
    except PrinterError as error:
        return Finding(
            "printer", good=False, words=f"{row.code}: {error}", advice="Set it right: 'bookdrop printers add --help'."
        )
    return Finding(
        "printer",
        good=status.ready,
        words=f"{row.code} at {row.uri}: {status.words}",
        advice="" if status.ready else "See to it; its slips wait. 'bookdrop printers list' says how many.",
    )


def _broker(settings: WorkerSettings) -> Iterator[Finding]:
    with context.connect(settings) as connection:
        connection.ensure_connection(max_retries=1, timeout=5)
        yield Finding("broker", good=True, words=f"{settings.broker.scheme} answers")
        if settings.broker.is_redis:
            yield from _redis_policy(getattr(connection.default_channel, "client"))  # noqa: B009 - untyped in kombu


def _redis_policy(client: "redis.Redis") -> Iterator[Finding]:
    try:
        policy = client.config_get("maxmemory-policy")["maxmemory-policy"]
        append = client.config_get("appendonly")["appendonly"]
    except redis.ResponseError:
        yield Finding("broker", good=True, words="its policy cannot be read by this user (CONFIG GET is not allowed)")
        return
    yield Finding(
        "broker",
        good=policy == "noeviction",
        words=f"maxmemory-policy {policy}",
        advice="" if policy == "noeviction" else "Set maxmemory-policy noeviction, or messages are evicted.",
    )
    yield Finding(
        "broker",
        good=append == "yes",
        words=f"appendonly {append}",
        advice="" if append == "yes" else "Set appendonly yes, or a restart of the server forgets what waits.",
    )
