# SPDX-License-Identifier: Apache-2.0
"""`bookdrop acl`: print the users of the broker, each with the least permissions it needs."""

import hashlib
import json
import os
import secrets
import shlex
from collections.abc import Sequence
from pathlib import Path

import click

from workers.access_control.redis import OLDEST_SERVER, SERVER_VERSIONS

stations_option = click.option(
    "--station",
    "stations",
    multiple=True,
    metavar="CODE",
    help="Station to create a user for; repeatable. Default: every active station of the database.",
)


@click.group("acl")
def acl_group() -> None:
    """Print users of the broker, ready to load: one each for every station, workers, operations and Flower."""


@acl_group.command("redis")
@stations_option
@click.option(
    "--generate",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Generate passwords. FOLDER gets one file per user with its broker URL, for BOOKDROP_BROKER_URL_FILE or"
    " BOOKDROP_STATION_BROKER_URL_FILE. Existing files are kept.",
)
@click.option(
    "--server-version",
    type=click.Choice(SERVER_VERSIONS),
    default=OLDEST_SERVER,
    show_default=True,
    help="Oldest Redis that loads the file. 7.2, also right for every Valkey, permits CLIENT SETINFO: without it ACL LOG"
    " contains a refusal for each connection. Redis 7.0 does not start with such a file.",
)
def redis_command(stations: tuple[str, ...], folder: Path | None, server_version: str) -> None:
    """Print an ACL file for Redis 7.0 and later or Valkey on standard output.

    Without --generate all users are off, with the password PLACEHOLDER: replace it and write 'on'. With --generate the
    file contains hashes and is ready to load. The user 'default' is off; 'administrator' has all permissions.

    A station may run no scripts. Update the stations before the server loads these users: a station of bookdrop 0.1.0
    runs a script.

    \b
    bookdrop acl redis --generate secrets > users.acl
    redis-server --aclfile users.acl        (or ACL LOAD in a server that uses this file)
    BOOKDROP_BROKER_URL_FILE=secrets/worker.url bookdrop worker returns
    BOOKDROP_STATION_BROKER_URL_FILE=secrets/station-main-desk-1.url bookdrop-station

    \b
    Exit codes: 0 printed; 1 there is no station, or the folder is not writable; 2 usage or settings error.
    """
    from schemas.broker_url import database_of
    from workers.access_control import redis
    from workers.settings import WorkerSettings

    url = WorkerSettings.load().broker_url.get_secret_value()
    codes = _station_codes(stations)
    try:
        database = database_of(url)
    except ValueError as error:
        raise click.ClickException(f"BOOKDROP_BROKER_URL {error}. Nothing was written.") from None
    users = redis.users(codes, database, server_version)
    try:
        hashes = {user.name: _hash(_password(folder, user.name, url)) for user in users} if folder else {}
    except OSError as error:
        raise click.ClickException(f"{error}. Nothing was printed.") from None
    click.echo(redis.DEFAULT_OFF)
    for user in users:
        click.echo(user.line(hashes.get(user.name)))
    summary = f"{len(codes)} stations, {len(users) - len(codes)} others; database {database}."
    summary += (
        f" Their URLs are in {folder}: give each file to its user only." if folder else " All are off: set passwords."
    )
    click.echo(summary, err=True)


@acl_group.command("rabbitmq")
@stations_option
@click.option(
    "--generate",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Generate passwords. FOLDER gets two files per user, with its password and its broker URL. Existing files are"
    " kept. Without this option rabbitmqctl prompts for each password.",
)
@click.option("--prefix", default="", help="Prefix of each user's name, where several libraries share a server.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["script", "definitions"]),
    default="script",
    show_default=True,
    help="script: a shell script of rabbitmqctl commands. definitions: a JSON file with the same users and policies,"
    " for 'rabbitmqctl import_definitions' or for load_definitions in the server's configuration; needs --generate.",
)
def rabbitmq_command(stations: tuple[str, ...], folder: Path | None, prefix: str, form: str) -> None:
    """Print the users of the virtual host of BOOKDROP_BROKER_URL on standard output, as a script or as definitions.

    A station may read its own reply queue, and write to the exchange bookdrop.events, which leads to the queue returns.
    Workers declare the exchange: update them, and then the stations, before the server loads these permissions.
    The policies limit all queues: the oldest dead letters and replies are removed, and a full work queue rejects
    messages.

    \b
    bookdrop acl rabbitmq --generate secrets > users.sh
    sh -e users.sh                          (on the server, as its administrator)
    BOOKDROP_BROKER_URL_FILE=secrets/returns.url bookdrop worker returns
    BOOKDROP_STATION_BROKER_URL_FILE=secrets/station-main-desk-1.url bookdrop-station

    \b
    Exit codes: 0 printed; 1 there is no station, or the folder is not writable; 2 usage or settings error.
    """
    from schemas.broker_url import virtual_host_of
    from workers.access_control import rabbitmq
    from workers.access_control.queue_limits import policies
    from workers.settings import WorkerSettings

    if form == "definitions" and folder is None:
        raise click.UsageError("--format definitions needs --generate FOLDER: it contains hashes of the passwords.")
    url = WorkerSettings.load().broker_url.get_secret_value()
    users = rabbitmq.permissions(_station_codes(stations))
    try:
        host = virtual_host_of(url)
        passwords = {user.name: _password(folder, prefix + user.name, url) for user in users} if folder else {}
        if form == "definitions":
            content = rabbitmq.definitions(users, host, prefix, passwords, secrets.token_bytes, limits=policies())
            click.echo(json.dumps(content, indent=1))
            return
        for name, password in passwords.items():
            _write(_password_file(folder, prefix + name), password)
    except ValueError as error:
        raise click.ClickException(f"BOOKDROP_BROKER_URL {error}. Nothing was written.") from None
    except OSError as error:
        raise click.ClickException(f"{error}. Nothing was printed.") from None
    for user in users:
        file = _password_file(folder, prefix + user.name) if folder else None
        for command in rabbitmq.commands(user, host, prefix, file):
            click.echo(command)
    for policy in policies():
        click.echo(
            f"rabbitmqctl set_policy -p {shlex.quote(host)} --apply-to queues {policy.name}"
            f" {shlex.quote(policy.pattern)} {shlex.quote(policy.definition_json)}"
        )


def _password_file(folder: Path | None, name: str) -> Path:
    return (folder or Path()) / f"{name}.password"


def _station_codes(stations: Sequence[str]) -> list[str]:
    """Return the given stations, or the active ones of the database."""
    import re

    from sqlalchemy import select

    from schemas.models import Station
    from schemas.topology import CODE_PATTERN
    from workers.commands.sessions import reading

    for code in stations:
        if not re.fullmatch(CODE_PATTERN, code):
            raise click.BadParameter(f"{code} is not a valid station code.", param_hint="--station")
    if stations:
        return list(dict.fromkeys(stations))
    with reading() as connection:
        codes = list(connection.execute(select(Station.code).where(Station.active).order_by(Station.code)).scalars())
    if not codes:
        raise click.ClickException(
            "The database has no active station. Import stations first, or name one with --station CODE."
        )
    return codes


def _password(folder: Path, name: str, url: str) -> str:
    """Return the user's password from its file, or write a generated one there. Raises `OSError`."""
    from schemas.broker_url import password_of, with_user

    file = folder / f"{name}.url"
    if file.exists() and (stored := password_of(file.read_text(encoding="utf-8").strip())):
        return stored
    password = secrets.token_urlsafe(24)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(file, with_user(url, name, password))
    return password


def _write(file: Path, secret: str) -> None:
    """Write a file that only its owner can read."""
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as out:
        out.write(secret + "\n")


def _hash(password: str) -> str:
    """Return the password's hash for an ACL file. It has no salt, which a long random password does not need."""
    return hashlib.sha256(password.encode()).hexdigest()
