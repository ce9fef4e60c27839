# SPDX-License-Identifier: Apache-2.0
"""Files and folders that only this process's user may read, also where other users of the machine may write."""

import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600
OTHERS: Final = 0o077
"""The permissions of a file's group and of all other users."""

_SIDE_FILES: Final = ("-wal", "-shm", "-journal")
"""Endings of the files that SQLite keeps next to a database."""


class UnsafePathError(Exception):
    """A file or folder that another user planted, or may replace. The text names it and the next step."""


def runtime_folder() -> Path:
    """The folder of this user's heartbeat files and sockets, in the temporary folder. It may not exist yet."""
    return Path(tempfile.gettempdir()) / f"bookdrop-{os.geteuid()}"


def private_folder(path: Path) -> Path:
    """Create the folder `path` with mode 0700, whatever the umask is; take the permissions of others from an existing one.

    Missing parents are created likewise. Returns `path`. Raises `UnsafePathError` if `path` is a symbolic link, is not a
    folder, or belongs to another user; `OSError` if it cannot be created.
    """
    if not path.parent.exists():
        private_folder(path.parent)
    with suppress(FileExistsError):
        path.mkdir(mode=FOLDER_MODE)
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        if (reason := _mismatch(path, stat.S_ISDIR, "folder")) is not None:
            raise UnsafePathError(_refused(path, reason)) from error
        raise
    try:
        status = os.fstat(folder)
        if status.st_uid != os.geteuid():
            raise UnsafePathError(_refused(path, f"belongs to the user with the id {status.st_uid}"))
        if stat.S_IMODE(status.st_mode) != FOLDER_MODE:
            os.fchmod(folder, FOLDER_MODE)
    finally:
        os.close(folder)
    return path


def touch_private(path: Path) -> None:
    """Set the times of the file `path` to now, and create it with mode 0600 if it does not exist.

    Raises `UnsafePathError` if `path` is a symbolic link, is not a file, or belongs to another user; `OSError` if it
    cannot be written.
    """
    try:
        # Without O_NONBLOCK a planted named pipe would block this process until another one reads from it.
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, FILE_MODE)
    except OSError as error:
        if (reason := _mismatch(path, stat.S_ISREG, "file")) is not None:
            raise UnsafePathError(_refused(path, reason)) from error
        raise
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise UnsafePathError(_refused(path, "is not a file"))
        if status.st_uid != os.geteuid():
            raise UnsafePathError(_refused(path, f"belongs to the user with the id {status.st_uid}"))
        if status.st_mode & OTHERS:
            os.fchmod(file, FILE_MODE)
        os.utime(file)
    finally:
        os.close(file)


def prepare_sqlite_file(path: Path) -> None:
    """Create the database file `path` with mode 0600 if it does not exist, and restrict an existing one.

    SQLite gives its side files the mode of the database, so only files of an earlier version need the change. A file of
    another user stays as it is. Raises `OSError` if the file cannot be created.
    """
    # An existing file is never opened here: closing it would release this process's locks on it (fcntl(2)), and SQLite
    # would lose those of its open connections.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE_MODE))
    for each in sqlite_files(path):
        with suppress(OSError):
            status = each.stat()
            if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_mode & OTHERS:
                each.chmod(stat.S_IMODE(status.st_mode) & ~OTHERS)


def sqlite_files(path: Path) -> tuple[Path, ...]:
    """The file of a SQLite database, and those that SQLite keeps next to it."""
    return (path, *(path.with_name(path.name + ending) for ending in _SIDE_FILES))


def readable_by_others(path: Path) -> bool:
    """True if `path` exists and has a permission for its group or for other users."""
    try:
        return bool(path.stat().st_mode & OTHERS)
    except OSError:
        return False


def _mismatch(path: Path, wanted: Callable[[int], bool], noun: str) -> str | None:
    """The reason why what is at `path` is not a `noun` of `wanted` mode; `None` if it is one, or if nothing is there."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return None
    if stat.S_ISLNK(mode):
        return "is a symbolic link"
    return None if wanted(mode) else f"is not a {noun}"


def _refused(path: Path, reason: str) -> str:
    return (
        f"{path} {reason}, so it is not used: another user of this machine could read or replace what is stored there."
        " Find out who created it, then delete it."
    )
