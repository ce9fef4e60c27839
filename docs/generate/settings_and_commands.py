# SPDX-License-Identifier: Apache-2.0
"""The reference pages of settings and commands, made from the program. `python -m docs.generate.settings_and_commands` writes them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from schemas.configuration import SideSettings
from stations.cli import main as station
from stations.settings import StationSettings
from workers.cli import main as operations
from workers.settings import WorkerSettings

FOLDER = Path("docs/reference")

_SETTINGS = """# Settings

Each setting is an environment variable, or a key in `bookdrop.toml`; the variable wins. The file is the one that
`BOOKDROP_CONFIG` names, or `bookdrop.toml` in the working folder, or `.bookdrop/bookdrop.toml`. A secret can stand in a
file: `BOOKDROP_STATION_KEY_FILE=/run/secrets/key` instead of `BOOKDROP_STATION_KEY`; this works for every setting. A
key that is no setting is refused, with the nearest one that is. `BOOKDROP_HOME` is the folder of `bookdrop up`
(`.bookdrop`). This page is made from the program (`python -m docs.generate.settings_and_commands`).
"""

_COMMANDS = """# Commands

`bookdrop` runs workers and serves operations; `bookdrop-station` is a desk. This is what `--help` says, made from the
program (`python -m docs.generate.settings_and_commands`).
"""


def pages() -> dict[str, str]:
    """File name to page, as Markdown."""
    sides = (_side("Workers and operations", WorkerSettings), _side("Stations", StationSettings))
    commands = (text for name, group in (("bookdrop", operations), ("bookdrop-station", station))
                for text in _helped(name, group, None))  # fmt: skip
    return {"settings.md": "\n".join([_SETTINGS, *sides]), "commands.md": "\n".join([_COMMANDS, *commands])}


def _side(title: str, settings: type[SideSettings]) -> str:
    prefix = str(settings.model_config.get("env_prefix"))
    rows = [
        f"| `{prefix}{name.upper()}` | {_default(field.get_default(), needed=field.is_required())} |"
        f" {(field.description or '').replace('|', chr(92) + '|')} |"
        for name, field in settings.model_fields.items()
    ]
    head = [
        f"## {title}: `[{settings.table}]`",
        "",
        f"The key in the file is the variable's name without `{prefix}`, in small letters.",
        "",
    ]
    return "\n".join([*head, "| variable | default | what it is |", "| --- | --- | --- |", *rows, ""])


def _default(value: Any, *, needed: bool) -> str:
    if needed:
        return "needed"
    if value is None or value == "":
        return "none"
    if hasattr(value, "get_secret_value"):
        value = value.get_secret_value()
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _helped(name: str, command: click.Command, above: click.Context | None) -> Iterator[str]:
    context = click.Context(
        command, info_name=name, parent=above, terminal_width=100, max_content_width=100, help_option_names=[]
    )
    yield f"## {context.command_path}\n\n```text\n{command.get_help(context).rstrip()}\n```\n"
    if isinstance(command, click.Group):
        for sub in command.list_commands(context):
            below = command.get_command(context, sub)
            if below is not None and not below.hidden:
                yield from _helped(sub, below, context)


if __name__ == "__main__":
    for file, text in pages().items():
        (FOLDER / file).write_text(text, encoding="utf-8")
