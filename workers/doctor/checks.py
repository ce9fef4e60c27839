# SPDX-License-Identifier: Apache-2.0
"""What a Return needs, looked at from outside: each part's state in words, and what to do about it."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import redis
from sqlalchemy import Engine, select, text

from schemas.configuration import ConfigurationError, config_file
from schemas.database import READ_ONLY, open_engine
from schemas.migration import revisions
from schemas.models import Branch, Printer, Station
from tasks.printing.printers.driver import PrinterError
from tasks.printing.printers.factory import open_printer
from workers import bootstrap
from workers.app import app
from workers.doctor import backlog, workers
from workers.doctor.finding import Finding, guarded
from workers.settings import WorkerSettings

CLOCK_TOLERANCE_SECONDS = 5.0
LEAST_FREE_MIB = 200
OLDEST_REDIS = (6, 2)
"""Without the command BLMOVE nothing can be received atomically."""


def diagnose() -> list[Finding]:
    """Look at everything, in the order in which it must be mended."""
    return _look(everything=True)


def readiness() -> list[Finding]:
    """Look whether database and broker answer and the tables are as this program wants them."""
    return _look(everything=False)


def _look(*, everything: bool) -> list[Finding]:
    try:
        settings = WorkerSettings.load()
        source = config_file()
    except ConfigurationError as error:
        return [
            Finding("settings", good=False, words=str(error), advice="Correct it, then run 'bookdrop doctor' again.")
        ]
    findings = [Finding("settings", good=True, words=f"from {source or 'the environment and defaults'}")]
    engine = open_engine(settings.database_url)
    places = _Places()
    try:
        findings += guarded(
            "database", lambda: _tables(engine), "Check BOOKDROP_DATABASE_URL and that the server runs."
        )
        if everything and all(finding.good for finding in findings):
            findings += guarded("database", lambda: _contents(engine, places), "Run 'bookdrop migrate'.")
    finally:
        engine.dispose()
    return (
        findings
        + guarded(
            "broker",
            lambda: _broker(settings, places if everything else None),
            "Check BOOKDROP_BROKER_URL and that the server runs.",
        )
        + (list(workers.hanging(settings)) if everything else [])
    )


@dataclass
class _Places:
    """What the database says there is, for the questions to the broker."""

    branches: list[str] = field(default_factory=list)
    stations: list[str] = field(default_factory=list)


def _tables(engine: Engine) -> Iterator[Finding]:
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


def _contents(engine: Engine, places: _Places) -> Iterator[Finding]:
    with engine.connect().execution_options(**READ_ONLY) as connection:
        if engine.dialect.name == "postgresql":
            theirs = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
            drift = abs((theirs - bootstrap.utc_now()).total_seconds())
            yield Finding(
                "clock",
                good=drift <= CLOCK_TOLERANCE_SECONDS,
                words=f"{drift:.1f} s from the database's",
                advice="" if drift <= CLOCK_TOLERANCE_SECONDS else "Let both machines keep their time by NTP.",
            )
        places.branches = list(connection.execute(select(Branch.code).order_by(Branch.code)).scalars())
        places.stations = list(
            connection.execute(select(Station.code).where(Station.active).order_by(Station.code)).scalars()
        )
        yield Finding(
            "stations",
            good=bool(places.stations),
            words=f"{len(places.stations)} active",
            advice=""
            if places.stations
            else "Import stations, each with its key: 'bookdrop import --kind stations FILE'.",
        )
        yield from backlog.in_database(connection, bootstrap.utc_now())
        asked = connection.execute(select(Printer.code, Printer.uri, Printer.on_hold)).all()
    yield from _space(engine)
    for row in asked:
        yield from _printer(row)


def _space(engine: Engine) -> Iterator[Finding]:
    if engine.dialect.name == "sqlite" and engine.url.database:
        yield from _free("database", Path(engine.url.database).resolve().parent)


def _free(part: str, folder: Path) -> Iterator[Finding]:
    """A finding when the disk of `folder` is about to be full."""
    free = shutil.disk_usage(folder).free / 2**20
    if free < LEAST_FREE_MIB:
        yield Finding(
            part,
            good=False,
            words=f"only {free:.0f} MiB are free on the disk of {folder}",
            advice="Make room: nothing can be stored once it is full.",
        )


def _printer(row: Any) -> Iterator[Finding]:
    where = urlsplit(row.uri)
    if row.on_hold:
        yield Finding(
            "printer", good=False, words=f"{row.code} is on hold", advice="Its slips wait until it is resumed."
        )
        return
    if where.scheme != "spool":
        yield _asked(row)
        return
    folder = Path(where.path)
    # The first slip makes the folder, so the nearest one that exists must let us.
    nearest = next(parent for parent in (folder, *folder.parents) if parent.exists())
    good = nearest.is_dir() and os.access(nearest, os.W_OK)
    yield Finding(
        "printer",
        good=good,
        words=f"{row.code} writes to {folder}",
        advice="" if good else f"Let the workers' user write to {nearest}.",
    )
    yield from _free("printer", nearest)


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


def _broker(settings: WorkerSettings, places: _Places | None) -> Iterator[Finding]:
    """The broker itself; with `places` also its policy, what waits there, and who takes it."""
    with bootstrap.connect(settings) as connection:
        connection.ensure_connection(max_retries=1, timeout=5)
        yield Finding("broker", good=True, words=f"{settings.broker.scheme} answers")
        if places is None:
            return
        if settings.broker.is_redis:
            client: redis.Redis = getattr(connection.default_channel, "client")  # noqa: B009 - untyped in kombu
            yield from _redis_version(client)
            yield from _redis_policy(client)
        yield from backlog.at_broker(connection, places.stations)
        yield from workers.workers(app, connection, places.branches)


def _redis_version(client: "redis.Redis") -> Iterator[Finding]:
    try:
        server = client.info("server")
    except redis.ResponseError:
        return  # this user may not ask
    version = str(server.get("valkey_version") or server.get("redis_version"))
    numbers = tuple(int(part) for part in str(server.get("redis_version", "0.0")).split(".")[:2])
    name = "Valkey" if "valkey_version" in server else "Redis"
    is_old = numbers < OLDEST_REDIS
    yield Finding(
        "broker",
        good=True,
        words=f"{name} {version}",
        advice="It is older than 6.2: workers receive as Celery does, and can lose a scan in hand." if is_old else "",
    )


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
