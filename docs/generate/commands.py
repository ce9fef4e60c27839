# SPDX-License-Identifier: Apache-2.0
"""The reference page of commands, generated from their help texts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from stations.cli import main as bookdrop_station
from workers.cli import main as bookdrop

PAGE: Final = Path("docs/reference/commands.md")

_HEAD: Final = """# Commands

`bookdrop` runs workers and serves operations; `bookdrop-station` is a station. This page shows the output of `--help` and
is generated from the code (`make docs`).
"""


def page() -> str:
    """The page, as Markdown."""
    programs = {"bookdrop": bookdrop, "bookdrop-station": bookdrop_station}
    return "\n".join([_HEAD, *(section for name, group in programs.items() for section in _sections(name, group))])


def _sections(name: str, command: click.Command, parent: click.Context | None = None) -> Iterator[str]:
    """The help text of a command, and those of its subcommands."""
    context = click.Context(
        command, info_name=name, parent=parent, terminal_width=100, max_content_width=100, help_option_names=[]
    )
    yield f"## {context.command_path}\n\n```text\n{command.get_help(context).rstrip()}\n```\n"
    if isinstance(command, click.Group):
        for subname in command.list_commands(context):
            subcommand = command.get_command(context, subname)
            if subcommand is not None and not subcommand.hidden:
                yield from _sections(subname, subcommand, context)
