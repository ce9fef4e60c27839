# SPDX-License-Identifier: Apache-2.0
"""`bookdrop flower`: Flower with the pages Prints and Returns."""

import os

import click


@click.command("flower", context_settings={"ignore_unknown_options": True})
@click.option("--address", help="Address to listen on (default: 127.0.0.1, this machine only).")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on (default: 5555).")
@click.option("--read-only", is_flag=True, help="Disable all actions, for every user.")
@click.option("--conf", type=click.Path(dir_okay=False), help="Flower's configuration file (default: flowerconfig.py).")
@click.argument("others", nargs=-1, type=click.UNPROCESSED, metavar="[FLOWER OPTIONS]...")
def flower_command(
    address: str | None, port: int | None, read_only: bool, conf: str | None, others: tuple[str, ...]
) -> None:
    """Monitor workers and tasks; act on print jobs; see the latest Returns and the stations.

    Only an identified user may act; the history stores the user's name. Flower's own login identifies users (basic_auth,
    or auth with a provider), or a proxy does (settings flower_user_header and flower_proxy_secret). Without a login,
    Flower shows its pages and permits no action.

    \b
    FLOWER_BASIC_AUTH=ann:secret,ben:other bookdrop flower
    bookdrop flower --read-only --port 5556
    bookdrop flower --conf deploy/flower/flowerconfig.py

    Set any option of Flower as --NAME=VALUE, in its configuration file, or as a variable FLOWER_NAME.
    """
    os.environ["BOOKDROP_ROLE"] = "flower"
    from tornado.options import Error

    from workers import logging
    from workers.flower import application
    from workers.settings import WorkerSettings

    unknown = next((argument for argument in others if not application.is_option(argument)), None)
    if unknown is not None:
        raise click.UsageError(f"Flower has no option {unknown}. Write its options as --NAME=VALUE.")
    settings = WorkerSettings.load()
    logging.configure(settings.log_level, settings.log_format)
    given = {"address": address, "port": port, "read_only": "true" if read_only else None, "conf": conf}
    try:
        application.read_options(
            [*(f"--{name}={value}" for name, value in given.items() if value is not None), *others]
        )
    except (Error, ValueError, FileNotFoundError) as error:
        raise click.UsageError(f"Invalid options of Flower: {error}") from None
    from schemas.private_files import OTHERS
    from workers.app import app

    os.umask(OTHERS)  # Flower stores its tasks in a file if its option persistent is set
    application.run(app, settings)
