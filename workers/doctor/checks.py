# SPDX-License-Identifier: Apache-2.0
"""Checks of everything that a Return and its slip need, each with a message and advice."""

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
from workers.doctor import backlog, broker_rights, broker_writes, pooler, private, server_log, workers
from workers.doctor.finding import Finding, guarded
from workers.settings import WorkerSettings

CLOCK_TOLERANCE_SECONDS = 5.0
MIN_FREE_MIB = 200
MIN_REDIS = (6, 2)
"""The atomic transport needs the command BLMOVE, which this version introduced."""


def diagnose() -> list[Finding]:
    """Run all checks, in the order in which an operator must solve their problems."""
    return _run(full=True)


def readiness() -> list[Finding]:
    """Check that database and broker respond, that the broker accepts messages, and the version of the schema."""
    return _run(full=False)


@dataclass
class _Registered:
    """Branches and stations in the database, for the checks of the broker."""

    branches: list[str] = field(default_factory=list)
    stations: list[str] = field(default_factory=list)


def _run(*, full: bool) -> list[Finding]:
    try:
        settings = WorkerSettings.load()
        source = config_file()
    except ConfigurationError as error:
        return [
            Finding("settings", ok=False, message=str(error), advice="Correct it, then run 'bookdrop doctor' again.")
        ]
    findings = [Finding("settings", ok=True, message=f"from {source or 'the environment and defaults'}")]
    engine = open_engine(settings.database_url)
    registered = _Registered()
    try:
        findings += guarded(
            "database", lambda: _schema(engine), "Check BOOKDROP_DATABASE_URL, and that the server runs."
        )
        if full and all(finding.ok for finding in findings):
            findings += guarded("database", lambda: _contents(engine, registered), "Run 'bookdrop migrate'.")
    finally:
        engine.dispose()
    return (
        findings
        + guarded(
            "broker",
            lambda: _broker(settings, registered if full else None),
            "Check BOOKDROP_BROKER_URL, and that the server runs.",
        )
        + (list(workers.stale_heartbeats(settings)) if full else [])
    )


def _schema(engine: Engine) -> Iterator[Finding]:
    file = engine.url.database
    if engine.dialect.name == "sqlite" and file and not Path(file).exists():
        yield Finding("database", ok=False, message=f"there is no file {file}", advice="Run 'bookdrop migrate'.")
        return
    current, wanted = revisions(engine)
    yield Finding("database", ok=True, message=f"{engine.dialect.name} responds")
    yield Finding(
        "migrations",
        ok=current == wanted,
        message=f"schema at {current or 'no version'}, this program needs {wanted}",
        advice="" if current == wanted else "Run 'bookdrop migrate'.",
    )


def _contents(engine: Engine, registered: _Registered) -> Iterator[Finding]:
    with engine.connect().execution_options(**READ_ONLY) as connection:
        if engine.dialect.name == "postgresql":
            database_time = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
            drift = abs((database_time - bootstrap.utc_now()).total_seconds())
            yield Finding(
                "clock",
                ok=drift <= CLOCK_TOLERANCE_SECONDS,
                message=f"{drift:.1f} s from the database's clock",
                advice="" if drift <= CLOCK_TOLERANCE_SECONDS else "Synchronise the clocks of both machines with NTP.",
            )
            yield from pooler.connection_pooler(connection)
            yield from server_log.postgresql_log(connection)
        registered.branches = list(connection.execute(select(Branch.code).order_by(Branch.code)).scalars())
        registered.stations = list(
            connection.execute(select(Station.code).where(Station.active).order_by(Station.code)).scalars()
        )
        yield Finding(
            "stations",
            ok=bool(registered.stations),
            message=f"{len(registered.stations)} active",
            advice=""
            if registered.stations
            else "Import stations with their keys: 'bookdrop import --kind stations FILE'.",
        )
        yield from backlog.in_database(connection, bootstrap.utc_now())
        printers = connection.execute(select(Printer.code, Printer.uri, Printer.on_hold)).all()
    if engine.dialect.name == "sqlite" and engine.url.database:
        yield from _disk_space("database", Path(engine.url.database).resolve().parent)
        yield from private.database_file(Path(engine.url.database))
    for printer in printers:
        yield from _printer(printer)


def _disk_space(part: str, folder: Path) -> Iterator[Finding]:
    """Yield a finding if the disk of `folder` is almost full."""
    free = shutil.disk_usage(folder).free / 2**20
    if free < MIN_FREE_MIB:
        yield Finding(
            part,
            ok=False,
            message=f"only {free:.0f} MiB are free on the disk of {folder}",
            advice="Free space: on a full disk nothing can be stored.",
        )


def _printer(row: Any) -> Iterator[Finding]:
    uri = urlsplit(row.uri)
    if row.on_hold:
        yield Finding(
            "printer",
            ok=False,
            message=f"{row.code} is on hold",
            advice=f"Its slips wait until an operator runs 'bookdrop printers resume {row.code}'.",
        )
        return
    if uri.scheme != "spool":
        yield _device(row)
        return
    folder = Path(uri.path)
    # The first slip creates the folder, so its nearest existing parent must be writable.
    nearest = next(parent for parent in (folder, *folder.parents) if parent.exists())
    writable = nearest.is_dir() and os.access(nearest, os.W_OK)
    yield Finding(
        "printer",
        ok=writable,
        message=f"{row.code} writes to {folder}",
        advice="" if writable else f"Give the workers' user write permission for {nearest}.",
    )
    yield from _disk_space("printer", nearest)
    yield from private.spool_folder(row.code, folder)


def _device(row: Any) -> Finding:
    """Read the printer's own status."""
    try:
        status = open_printer(row.uri).status()
    except PrinterError as error:
        return Finding(
            "printer",
            ok=False,
            message=f"{row.code}: {error}",
            advice="Correct its registration: 'bookdrop printers add --help'.",
        )
    return Finding(
        "printer",
        ok=status.ready,
        message=f"{row.code} at {row.uri}: {status.description}",
        advice="" if status.ready else "Check the printer. Its slips wait; 'bookdrop printers list' shows how many.",
    )


def _broker(settings: WorkerSettings, registered: _Registered | None) -> Iterator[Finding]:
    """Check the broker; with `registered` also its settings, its queues and their consumers."""
    with bootstrap.connect(settings) as connection:
        connection.ensure_connection(max_retries=1, timeout=5)
        yield Finding("broker", ok=True, message=f"{settings.broker.scheme} responds")
        if not settings.broker.is_redis:
            refused = list(broker_writes.confirmed_by_rabbitmq(connection))
            if refused:  # the connection is of no further use
                yield from refused
                return
        else:
            client: redis.Redis = getattr(connection.default_channel, "client")  # noqa: B009 - untyped in kombu
            yield from broker_writes.accepted_by_redis(client)
        if registered is None:
            return
        if settings.broker.is_redis:
            yield from _redis_version(client)
            yield from _redis_settings(client)
            if settings.broker.scheme != "redis+socket":  # the permissions of the socket are its users
                yield from broker_rights.redis_user(client)
        else:
            yield from broker_rights.rabbitmq_user(connection)
        yield from backlog.at_broker(connection, registered.stations)
        yield from workers.responding(app, connection, registered.branches)


def _redis_version(client: "redis.Redis") -> Iterator[Finding]:
    try:
        server = client.info("server")
    except redis.ResponseError:
        return  # the user lacks the permission
    version = str(server.get("valkey_version") or server.get("redis_version"))
    numbers = tuple(int(part) for part in str(server.get("redis_version", "0.0")).split(".")[:2])
    name = "Valkey" if "valkey_version" in server else "Redis"
    advice = (
        "It is older than 6.2: workers use kombu's transport, and a worker that dies while it receives loses a message."
    )
    yield Finding("broker", ok=True, message=f"{name} {version}", advice=advice if numbers < MIN_REDIS else "")


def _redis_settings(client: "redis.Redis") -> Iterator[Finding]:
    try:
        policy = client.config_get("maxmemory-policy")["maxmemory-policy"]
        append = client.config_get("appendonly")["appendonly"]
    except redis.ResponseError:
        yield Finding("broker", ok=True, message="this user cannot read its settings (CONFIG GET is not allowed)")
        return
    yield Finding(
        "broker",
        ok=policy == "noeviction",
        message=f"maxmemory-policy {policy}",
        advice="" if policy == "noeviction" else "Set maxmemory-policy noeviction, or the server evicts messages.",
    )
    yield Finding(
        "broker",
        ok=append == "yes",
        message=f"appendonly {append}",
        advice="" if append == "yes" else "Set appendonly yes, or a restart of the server loses waiting messages.",
    )
