# SPDX-License-Identifier: Apache-2.0
"""`bookdrop-station`: a station at this terminal, or single commands for scripts."""

import click

from stations.commands import circulation, returns, slips
from stations.commands.journal import journal_group
from stations.commands.prompt import desk_command


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="bookdrop")
@click.option("--code", help="Code of this station; overrides the setting.")
@click.pass_context
def main(ctx: click.Context, code: str | None) -> None:
    """Return interlibrary loans at a station. Without a command: the prompt.

    \b
    bookdrop-station                             a prompt: scan, Enter, scan, Enter...
    bookdrop-station scan 31000000170            one scan, and its reply
    bookdrop-station return BR-2026-00017        Return from the request
    bookdrop-station undo last                   undo the last Return
    bookdrop-station reprint last --reason torn  print its slip again, marked COPY 2
    bookdrop-station pack SLIP BARCODE           check that slip and item belong together
    bookdrop-station journal list                the last scans and their replies
    bookdrop-station journal replay              after an outage: send the held scans
    cat barcodes.txt | bookdrop-station          a pipe of barcodes

    Every scan is stored on this machine's disk until its reply arrives. Continue scanning during a network outage:
    the station sends held scans later, each with the time of its scan.

    \b
    Exit codes:  0  every scan has a reply: returned, or already returned
                 1  at least one refusal (the prompt shows refusals and ends with 0)
                 2  wrong usage or settings
                 3  at least one scan is pending: stored, and resent by the next command of this station
                 4  not stored: the journal cannot be written; nothing was sent

    Settings: BOOKDROP_STATION_CODE, BOOKDROP_STATION_KEY (or BOOKDROP_STATION_KEY_FILE), BOOKDROP_BROKER_URL
    and more, or [station] in bookdrop.toml.
    """
    ctx.obj = code
    if ctx.invoked_subcommand is None:
        ctx.invoke(desk_command)


for command in (
    returns.scan_command,
    returns.return_command,
    returns.undo_command,
    slips.pack_command,
    slips.reprint_command,
    circulation.receive_command,
    circulation.loan_command,
    circulation.discharge_command,
    circulation.complete_command,
    desk_command,
    journal_group,
):
    main.add_command(command)


if __name__ == "__main__":
    main(prog_name="bookdrop-station")
