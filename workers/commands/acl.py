# SPDX-License-Identifier: Apache-2.0
"""`bookdrop acl`: users of the broker, each with what it needs and no more."""

import hashlib
import os
import secrets
import shlex
from collections.abc import Sequence
from pathlib import Path

import click

stations_option = click.option(
    "--station",
    "stations",
    multiple=True,
    metavar="CODE",
    help="A station that gets a user; may be repeated. Without it, every active station of the database.",
)


@click.group("acl")
def acl_group() -> None:
    """Print users of the broker, ready to load: one for each station, for workers, operations and Flower."""


@acl_group.command("redis")
@stations_option
@click.option(
    "--generate",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Make passwords: FOLDER gets a file for each user with its broker URL, for BOOKDROP_BROKER_URL_FILE or"
    " BOOKDROP_STATION_BROKER_URL_FILE. Those that are there are kept.",
)
def redis_command(stations: tuple[str, ...], folder: Path | None) -> None:
    """Print an ACL file for Redis 7 or Valkey on standard output.

    Without --generate all users are off, with the password PLACEHOLDER: write yours, and 'on'. With it the file holds
    hashes, and can be loaded as it is. The user 'default' is turned off; 'administrator' may do everything.

    \b
    bookdrop acl redis --generate secrets > users.acl
    redis-server --aclfile users.acl        (or ACL LOAD in a server that has this file)
    BOOKDROP_BROKER_URL_FILE=secrets/worker.url bookdrop worker returns
    BOOKDROP_STATION_BROKER_URL_FILE=secrets/station-main-desk-1.url bookdrop-station

    \b
    Exit codes: 0 printed; 1 no station was found, or the folder cannot be written; 2 wrong use or settings.
    """
    from schemas.broker_url import database_of
    from workers.access_control import redis
    from workers.settings import WorkerSettings

    url = WorkerSettings.load().broker_url.get_secret_value()
    found = _known(stations)
    try:
        database = database_of(url)
    except ValueError as error:
        raise click.ClickException(f"BOOKDROP_BROKER_URL {error}. Nothing was written.") from None
    made = redis.users(found, database)
    try:
        hashes = {user.name: _hash(_password(folder, user.name, url)) for user in made} if folder else {}
    except OSError as error:
        raise click.ClickException(f"{error}. Nothing was printed.") from None
    click.echo(redis.DEFAULT_OFF)
    for user in made:
        click.echo(user.line(hashes.get(user.name)))
    words = f"{len(found)} stations, {len(made) - len(found)} others; database {database}."
    words += (
        f" Their URLs are in {folder}: give each file to its owner alone." if folder else " All are off: set passwords."
    )
    click.echo(words, err=True)


@acl_group.command("rabbitmq")
@stations_option
@click.option(
    "--generate",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Make passwords: FOLDER gets two files for each user, its password and its broker URL. Those that are there are"
    " kept. Without it, rabbitmqctl asks for each password.",
)
@click.option("--prefix", default="", help="Put before each user's name, where several libraries share a server.")
def rabbitmq_command(stations: tuple[str, ...], folder: Path | None, prefix: str) -> None:
    """Print a shell script of rabbitmqctl commands on standard output, for the virtual host of BOOKDROP_BROKER_URL.

    A station may read its own reply queue alone. Where it may write, RabbitMQ cannot say as exactly as Redis: to any
    queue; what is not signed with its key is not believed.

    \b
    bookdrop acl rabbitmq --generate secrets > users.sh
    sh -e users.sh                          (on the server, as its administrator)
    BOOKDROP_STATION_BROKER_URL_FILE=secrets/station-main-desk-1.url bookdrop-station

    \b
    Exit codes: 0 printed; 1 no station was found, or the folder cannot be written; 2 wrong use or settings.
    """
    from schemas.broker_url import virtual_host_of
    from workers.access_control.rabbitmq import permissions
    from workers.settings import WorkerSettings

    url = WorkerSettings.load().broker_url.get_secret_value()
    found = _known(stations)
    try:
        host = virtual_host_of(url)
        for user in permissions(found):
            name, given = shlex.quote(prefix + user.name), ""
            if folder:
                file = folder / f"{prefix}{user.name}.password"
                _write(file, _password(folder, prefix + user.name, url))
                given = f" < {shlex.quote(str(file))}"
            click.echo(f"rabbitmqctl add_user {name}{given}")
            allowed = " ".join(map(shlex.quote, (user.configure, user.write, user.read)))
            click.echo(f"rabbitmqctl set_permissions -p {shlex.quote(host)} {name} {allowed}")
    except ValueError as error:
        raise click.ClickException(f"BOOKDROP_BROKER_URL {error}. Nothing was written.") from None
    except OSError as error:
        raise click.ClickException(f"{error}. What is printed is not complete.") from None


def _known(stations: Sequence[str]) -> list[str]:
    """The stations that were named, or those of the database."""
    import re

    from sqlalchemy import select

    from schemas.models import Station
    from schemas.topology import CODE_PATTERN
    from workers.commands.sessions import reading

    for code in stations:
        if not re.fullmatch(CODE_PATTERN, code):
            raise click.BadParameter(f"{code} is no station's code.", param_hint="--station")
    if stations:
        return list(dict.fromkeys(stations))
    with reading() as connection:
        found = list(connection.execute(select(Station.code).where(Station.active).order_by(Station.code)).scalars())
    if not found:
        raise click.ClickException(
            "The database has no active station. Import them first, or name one with --station CODE."
        )
    return found


def _password(folder: Path, name: str, url: str) -> str:
    """The user's password: the one in its file, or a new one, which is written there. Raises `OSError`."""
    from schemas.broker_url import password_of, with_user

    file = folder / f"{name}.url"
    if file.exists() and (kept := password_of(file.read_text(encoding="utf-8").strip())):
        return kept
    password = secrets.token_urlsafe(24)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(file, with_user(url, name, password))
    return password


def _write(file: Path, secret: str) -> None:
    """For its owner's eyes alone."""
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as out:
        out.write(secret + "\n")


def _hash(password: str) -> str:
    """As an ACL file has passwords; they are random and long, so no salt is missed."""
    return hashlib.sha256(password.encode()).hexdigest()
