# SPDX-License-Identifier: Apache-2.0
"""`bookdrop-station`: a desk at this terminal, or single scans for scripts."""

import click

from stations.commands import circulation, returns, slips
from stations.commands.journal import journal_group
from stations.commands.prompt import desk_command


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="bookdrop")
@click.option("--code", help="Code of this station, if not the one of the settings.")
@click.pass_context
def main(ctx: click.Context, code: str | None) -> None:
    """A desk that returns interlibrary loans. Without a command: the desk.

    \b
    bookdrop-station                             a prompt: scan, Enter, scan, Enter...
    bookdrop-station scan 31000000170            one scan, and its answer
    bookdrop-station return BR-2026-00017        Return from the request
    bookdrop-station undo last                   take the last Return back
    bookdrop-station reprint last --reason torn  another slip for it; COPY 2 stands on it
    bookdrop-station pack SLIP BARCODE           do slip and item belong together?
    bookdrop-station journal list                the last scans and their answers
    bookdrop-station journal replay              after an outage: send what was held
    cat barcodes.txt | bookdrop-station          a pipe of barcodes

    Every scan is kept on this machine's disk until it is answered. With the network away go on scanning:
    what was taken is sent later, with its own time.

    \b
    Exit codes:  0  all answered: returned, or returned before
                 1  something was refused (the desk shows it and ends with 0)
                 2  wrong use or settings
                 3  something is pending: kept, and asked again by the next command or desk
                 4  not taken: the journal cannot be written; nothing was sent

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
