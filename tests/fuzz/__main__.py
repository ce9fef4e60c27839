# SPDX-License-Identifier: Apache-2.0
"""The fuzz run's command: `make fuzz`, or `python -m tests.fuzz`."""

import json
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import click
import redis

from schemas.database import open_engine
from tests.databases import migrated_sqlite_file
from tests.fuzz.publishing import Publisher, RabbitPublisher, RedisPublisher
from tests.fuzz.running import Figures, Run, Scene, ViolationError
from tests.library import Library
from tests.polling import wait_until
from tests.processes import Deployment
from tests.rabbitmq import virtual_host
from tests.valkey import valkey_server

BROKERS = ("valkey", "redis", "rabbitmq")
MISSING = 2


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--messages", type=click.IntRange(1), default=100_000, show_default=True, help="Mutated messages to send."
)
@click.option("--broker", type=click.Choice(BROKERS), default="valkey", show_default=True, help="The broker.")
@click.option("--seed", type=int, help="Repeat the mutations of this seed.  [default: a new one, which is printed]")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures to this file.")
@click.pass_context
def main(ctx: click.Context, messages: int, broker: str, seed: int | None, json_file: Path | None) -> None:
    """Send mutated messages through a real returns worker of two processes, with honest scans between them.

    The mutations change events, JSON texts, headers, properties and, on Redis, list entries, with a station's key and
    without. The run verifies that no process ends, that each message has an outcome, that nothing without a valid
    signature is performed, that both processes still get work, that the worker's memory is bounded, and that each honest
    scan gets its reply. The servers are separate: `valkey` is the bundled one, `redis` needs redis-server, and
    `rabbitmq` needs a server on this machine and root, who creates a virtual host on it.

    \b
    Exit codes:  0  every property held
                 1  a property does not hold: the text and the figures state which
                 2  a server is missing, or wrong usage
    """  # fmt: skip
    seed = secrets.randbelow(2**31) if seed is None else seed
    click.echo(f"{messages} messages on {broker}, --seed {seed}")
    figures = Figures(broker, seed, messages)
    code = 0
    with tempfile.TemporaryDirectory(prefix="bd-") as name:
        folder = Path(name)
        try:
            with server(broker, folder) as (url, publisher):
                run(folder, url, publisher, figures)
        except ViolationError as violation:
            click.echo(f"Violated: {violation}", err=True)
            click.echo((folder / "returns.log").read_text(encoding="utf-8", errors="replace")[-4000:], err=True)
            code = 1
        except MissingServerError as error:
            click.echo(str(error), err=True)
            ctx.exit(MISSING)
    text = json.dumps({**asdict(figures), "accounted": figures.accounted, "held": code == 0}, indent=2)
    click.echo(text)
    if json_file is not None:
        json_file.write_text(text + "\n", encoding="utf-8")
    ctx.exit(code)


class MissingServerError(Exception):
    """The server of a broker is not on this machine. The text names it."""


def run(folder: Path, url: str, publisher: Publisher, figures: Figures) -> Figures:
    """One run in `folder`, with a new database."""
    with migrated_sqlite_file() as template:
        shutil.copy(template, folder / "bookdrop.db")
    database_url = f"sqlite:///{folder / 'bookdrop.db'}"
    engine = open_engine(database_url)
    try:
        library = Library(engine, folder / "spool").open()
        scene = Scene(Deployment(url, database_url, folder), library, engine, publisher)
        return Run(scene, figures, click.echo)()
    finally:
        engine.dispose()


@contextmanager
def server(broker: str, folder: Path) -> Iterator[tuple[str, Publisher]]:
    """A separate server of `broker`: its URL, and a publisher. Raises `MissingServerError`."""
    match broker:
        case "valkey":
            with valkey_server() as valkey:
                yield valkey.url, RedisPublisher(valkey.client)
        case "redis":
            with _redis_server(folder) as (url, client):
                yield url, RedisPublisher(client)
        case _:
            with virtual_host() as host:
                if host is None:
                    raise MissingServerError("rabbitmq needs a RabbitMQ server on this machine, and root.")
                publisher = RabbitPublisher(host.url)
                try:
                    yield host.url, publisher
                finally:
                    publisher.close()


@contextmanager
def _redis_server(folder: Path) -> Iterator[tuple[str, redis.Redis]]:
    program = shutil.which("redis-server")
    if program is None:
        raise MissingServerError("redis needs the program redis-server (Debian package redis-server).")
    socket = folder / "r.sock"
    process = subprocess.Popen(
        [program, "--port", "0", "--unixsocket", socket, "--dir", folder, "--save", ""], stdout=subprocess.DEVNULL
    )
    try:
        with redis.Redis(unix_socket_path=str(socket)) as client:
            wait_until(client.ping, "Redis responds", ignore=(redis.ConnectionError,))
            yield f"redis+socket://{socket}", client
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
