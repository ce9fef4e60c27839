# SPDX-License-Identifier: Apache-2.0
"""`desk`: the prompt, or a pipe of barcodes."""

import sys

import click

from stations.commands.output import NOT_TAKEN, PENDING, SUCCESS, journal_errors, load_settings


@click.command("desk")
@click.pass_obj
def desk_command(code: str | None) -> None:
    """A prompt for a scanner, or a pipe of barcodes, one a line.

    The prompt is ready again at once after each scan; answers follow, each with its barcode. ":help" at the prompt
    says what else it can do. At the end of the input (Ctrl-D) it waits for the answers that are still out; Ctrl-C
    leaves at once. Refusals are shown and do not change the exit code here.

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
    for number in (signal.SIGTERM, signal.SIGHUP):  # leave as Ctrl-C does, with the terminal as it was found
        signal.signal(number, signal.default_int_handler)
    interactive = sys.stdin.isatty()
    screen = Screen(sys.stdout, interactive=interactive, sounds=interactive)
    prompt = ScanPrompt(screen, lambda: datetime.now(UTC), shows_pending=interactive)
    with (
        journal_errors(),
        StationClient(
            settings, on_reply=prompt.on_reply, on_slip=prompt.on_slip, on_progress=prompt.on_progress
        ) as client,
    ):
        if interactive:
            click.echo(f"Station {settings.code}. Scan an item, or :help.")
        stats = client.journal.stats()
        if stats.unanswered:
            click.echo(f"Earlier scans without an answer: {stats.unanswered}. They are asked again.")
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
            f"Still pending: {len(pending)}. Kept in {settings.journal_file}, and asked again by the next command or"
            " desk of this station."
        )
    raise SystemExit(NOT_TAKEN if prompt.not_stored else PENDING if pending else SUCCESS)
