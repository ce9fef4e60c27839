# SPDX-License-Identifier: Apache-2.0
"""Checks of the permissions of files that contain patrons, station keys or slips."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from schemas.private_files import OTHERS, readable_by_others, sqlite_files
from workers.doctor.finding import Finding


def database_file(path: Path) -> Iterator[Finding]:
    """Yield a finding for each file of a SQLite database that other users may read, with the command to correct it.

    A process of the files' owner restricts them when it connects, so such a file belongs to another user.
    """
    for file in sqlite_files(path):
        if readable_by_others(file):
            owner = file.stat().st_uid
            yield Finding(
                "database",
                ok=False,
                message=f"other users may read {file}, which contains patrons and the stations' keys",
                advice=f"It belongs to the user with the id {owner}, and this one has {os.geteuid()}: run as root"
                f" 'chown' to the workers' user and 'chmod 600 {file}'.",
            )


def spool_folder(printer: str, folder: Path) -> Iterator[Finding]:
    """Yield a finding if users who are neither the owner nor in a chosen group may list the slips of `printer`."""
    try:
        mode = folder.stat().st_mode
    except OSError:
        return
    permitted = 0o050 if mode & stat.S_ISGID else 0
    if mode & OTHERS & ~permitted:
        yield Finding(
            "printer",
            ok=True,
            message=f"{printer}: other users may use the folder {folder}",
            advice=f"Run 'chmod 700 {folder}'; for another program's user, give the folder its group and mode 2750.",
        )
