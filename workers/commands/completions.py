# SPDX-License-Identifier: Apache-2.0
"""`bookdrop completions`: a script with which a shell completes commands and options."""

import click
from click.shell_completion import get_completion_class

PROGRAMS = ("bookdrop", "bookdrop-station")


@click.command("completions")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.option("--program", type=click.Choice(PROGRAMS), default=PROGRAMS[0], show_default=True)
def completions_command(shell: str, program: str) -> None:
    """Print a script with which SHELL completes a program's commands and options.

    \b
    bash: bookdrop completions bash > ~/.local/share/bash-completion/completions/bookdrop
    zsh:  bookdrop completions zsh > ~/.zfunc/_bookdrop     (in a folder of $fpath)
    fish: bookdrop completions fish > ~/.config/fish/completions/bookdrop.fish

    For the stations' command add --program bookdrop-station, and name the file after it.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    variable = f"_{program}_COMPLETE".replace("-", "_").upper()
    click.echo(kind(click.Group(program), {}, program, variable).source())
