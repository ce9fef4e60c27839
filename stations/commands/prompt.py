# SPDX-License-Identifier: Apache-2.0
"""The command that opens the prompt for a scanner, or reads a pipe of barcodes."""

import contextlib
import sys

import click

from stations.commands.output import (
    NOT_STORED,
    PENDING,
    SUCCESS,
    journal_errors,
    load_settings,
    warn_of_rejected_messages,
)


@click.command("desk")
@click.pass_obj
def desk_command(code: str | None) -> None:
    """Read barcodes from a scanner at a prompt, or from a pipe, one a line.

    The prompt accepts the next scan at once; each reply follows with its barcode. ":help" at the prompt lists the
    other commands. At the end of the input (Ctrl-D) the command waits for outstanding replies; Ctrl-C leaves at once.
    Refusals are shown and do not change the exit code here.

    \b
    bookdrop-station desk
    bookdrop-station desk <barcodes.txt
    """
    import signal
    from datetime import UTC, datetime

    from stations.client import StationClient
    from stations.prompt import ScanPrompt
    from stations.terminal import Screen, read_lines, read_typed_lines

    settings = load_settings(code)
    for number in (signal.SIGTERM, signal.SIGHUP):  # exit as Ctrl-C does, so that the terminal mode is restored
        signal.signal(number, signal.default_int_handler)
    interactive = sys.stdin.isatty()
    screen = Screen(sys.stdout, interactive=interactive, sounds=interactive)
    prompt = ScanPrompt(screen, lambda: datetime.now(UTC), shows_pending=interactive)
    with (
        journal_errors(),
        StationClient(
            settings, on_reply=prompt.on_reply, on_slip=prompt.on_slip, on_progress=prompt.on_progress
        ) as client,
        contextlib.nullcontext() if interactive else warn_of_rejected_messages(client),
    ):
        if interactive:
            click.echo(f"Station {settings.code}. Scan an item, or :help.")
        stats = client.journal.stats()
        if stats.unanswered:
            click.echo(f"Earlier scans without a reply: {stats.unanswered}. They are sent again.")
        if stats.exceptions:
            click.echo(f"Held scans that were refused later: {stats.exceptions}. Type :exceptions to see them.")
        try:
            prompt.serve(client, read_typed_lines(sys.stdin, screen) if interactive else read_lines(sys.stdin))
            screen.hide_prompt()
            pending = prompt.wait_for_replies(client, settings.reply_timeout_seconds)
        except KeyboardInterrupt:
            screen.hide_prompt()
            pending = prompt.show_pending(client)
    if pending:
        click.echo(
            f"Still pending: {len(pending)}. Kept in {settings.journal_file}, and sent again by the next command of"
            " this station."
        )
    raise SystemExit(NOT_STORED if prompt.not_stored else PENDING if pending else SUCCESS)
