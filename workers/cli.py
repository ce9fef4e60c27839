# SPDX-License-Identifier: Apache-2.0
"""`bookdrop`: workers and operations. Each command's own module is loaded only when it runs."""

import importlib
import sys
from typing import Any

import click

from schemas.configuration import ConfigurationError

WRONG_USE = 2

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
    "privacy": ("workers.commands.privacy", "privacy_group"),
    "quarantine": ("workers.commands.quarantine", "quarantine_group"),
    "requests": ("workers.commands.requests", "requests_group"),
    "prints": ("workers.commands.prints", "prints_group"),
    "printers": ("workers.commands.printers", "printers_group"),
}


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands, in the order of a day's work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; settings that cannot be used are told in words."""
        try:
            return super().invoke(ctx)
        except ConfigurationError as error:
            click.echo(f"Error: {error}\nNothing was changed.", err=True)
            ctx.exit(WRONG_USE)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="bookdrop")
def main() -> None:
    """Send borrowed books home: workers and operations of bookdrop.

    \b
    Start here:   bookdrop up            everything on this machine, with demo data
    Then, beside: bookdrop-station       a desk, in a second terminal
                  bookdrop status        what runs, and how it fares

    Settings come from BOOKDROP_... variables, or from bookdrop.toml in this folder (or .bookdrop/bookdrop.toml).
    """


if __name__ == "__main__":
    sys.exit(main())
