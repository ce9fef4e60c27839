# SPDX-License-Identifier: Apache-2.0
"""`bookdrop branches`: list the branches."""

import click

from workers.commands.json_output import to_json
from workers.commands.options import json_option
from workers.commands.sessions import reading


@click.group("branches")
def branches_group() -> None:
    """List the branches of the library. `bookdrop add branches` adds and changes them."""


@branches_group.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """List the branches: time zone, own courier code, default printer, number of active stations, name.

    A due date without a time ends with that day in the time zone of the branch; without one, in that of the machine that
    runs the import. To change it: bookdrop add branches code=main timezone=Europe/Berlin
    """
    from tasks.stations.queries import branches

    with reading() as connection:
        found = branches(connection)
    if as_json:
        click.echo(to_json({"branches": found}))
        return
    for row in found:
        click.echo(
            f"{row['branch']:<12}{row['timezone'] or 'time zone of the machine':<26}{row['delivery_code'] or '-':<12}"
            f"{row['printer'] or 'no printer':<16}{row['stations']} stations  {row['name']}, {row['library']}"
        )
    if not found:
        click.echo(
            "There is no branch. Add one: bookdrop add branches code=main name='Main Library' library='Our Library'"
        )
