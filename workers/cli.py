# SPDX-License-Identifier: Apache-2.0
"""`bookdrop`: workers and operations. A command's module is imported when the command runs."""

import importlib
import sys
from typing import Any

import click

from schemas.configuration import ConfigurationError
from schemas.private_files import UnsafePathError

USAGE_ERROR = 2

COMMANDS = {
    "up": ("workers.commands.up", "up_command"),
    "down": ("workers.commands.up", "down_command"),
    "status": ("workers.commands.up", "status_command"),
    "doctor": ("workers.commands.doctor", "doctor_command"),
    "health": ("workers.commands.health", "health_group"),
    "metrics": ("workers.commands.metrics", "metrics_command"),
    "worker": ("workers.commands.worker", "worker_command"),
    "flower": ("workers.commands.flower", "flower_command"),
    "migrate": ("workers.commands.migrate", "migrate_command"),
    "import": ("workers.commands.data", "import_command"),
    "add": ("workers.commands.data", "add_command"),
    "demo-data": ("workers.commands.data", "demo_data_command"),
    "acl": ("workers.commands.acl", "acl_group"),
    "patrons": ("workers.commands.patrons", "patrons_group"),
    "privacy": ("workers.commands.privacy", "privacy_group"),
    "quarantine": ("workers.commands.quarantine", "quarantine_group"),
    "requests": ("workers.commands.requests", "requests_group"),
    "export": ("workers.commands.export", "export_group"),
    "webhooks": ("workers.commands.webhooks", "webhooks_group"),
    "items": ("workers.commands.items", "items_group"),
    "branches": ("workers.commands.branches", "branches_group"),
    "prints": ("workers.commands.prints", "prints_group"),
    "stations": ("workers.commands.stations", "stations_group"),
    "printers": ("workers.commands.printers", "printers_group"),
    "completions": ("workers.commands.completions", "completions_command"),
}


class LazyGroup(click.Group):
    """A group that imports the module of a command when it is requested."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, in the order in which an operator needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; `None` if there is no command of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Invalid settings, and a file or folder of another user, end it with a message and exit code 2."""
        try:
            return super().invoke(ctx)
        except (ConfigurationError, UnsafePathError) as error:
            click.echo(f"Error: {error}\nNothing was changed.", err=True)
            ctx.exit(USAGE_ERROR)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="bookdrop")
def main() -> None:
    """Return interlibrary loans: workers and operations of bookdrop.

    \b
    Start with:   bookdrop up            everything on this machine, with demo data
    Then run:     bookdrop-station       another station, in a second terminal
                  bookdrop status        the processes and the waiting messages

    Settings come from BOOKDROP_... variables, or from bookdrop.toml in this folder (or .bookdrop/bookdrop.toml).
    """


if __name__ == "__main__":
    sys.exit(main())
