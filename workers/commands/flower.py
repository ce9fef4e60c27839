# SPDX-License-Identifier: Apache-2.0
"""`bookdrop flower`: Flower with the pages Prints and Returns."""

import os

import click


@click.command("flower", context_settings={"ignore_unknown_options": True})
@click.option("--address", help="Address to listen on (default: 127.0.0.1, this machine alone).")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on (default: 5555).")
@click.option("--read-only", is_flag=True, help="Nothing can be decided or changed, by anybody.")
@click.option("--conf", type=click.Path(dir_okay=False), help="Flower's configuration file (default: flowerconfig.py).")
@click.argument("others", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS OF FLOWER]...")
def flower_command(
    address: str | None, port: int | None, read_only: bool, conf: str | None, others: tuple[str, ...]
) -> None:
    """Watch workers and tasks, and act: slips in trouble, the last Returns, the stations.

    To decide what becomes of a slip one must be known by name; the name stands in the history. Who is there is told
    by Flower's own login (basic_auth, or auth with a provider), by a proxy (settings flower_user_header and
    flower_proxy_secret), or, where there is neither, by signing in (setting flower_users).

    \b
    FLOWER_BASIC_AUTH=ann:secret,ben:other bookdrop flower
    bookdrop flower --read-only --port 5556
    bookdrop flower --conf deploy/flower/flowerconfig.py

    Every option of Flower works, as --NAME=VALUE, in its configuration file, or as a variable FLOWER_NAME.
    """
    os.environ["BOOKDROP_ROLE"] = "flower"
    from tornado.options import Error

    from workers import logging
    from workers.flower import application
    from workers.settings import WorkerSettings

    wrong = next((each for each in others if not application.is_option(each)), None)
    if wrong is not None:
        raise click.UsageError(f"Flower has no option {wrong}. Its options are given as --NAME=VALUE.")
    settings = WorkerSettings.load()
    logging.configure(settings.log_level, settings.log_format)
    given = {"address": address, "port": port, "read_only": "true" if read_only else None, "conf": conf}
    try:
        application.read_options(
            [*(f"--{name}={value}" for name, value in given.items() if value is not None), *others]
        )
    except (Error, ValueError, FileNotFoundError) as error:
        raise click.UsageError(f"Flower's options cannot be used: {error}") from None
    from workers.app import app

    application.run(app, settings)
