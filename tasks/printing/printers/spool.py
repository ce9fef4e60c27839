# SPDX-License-Identifier: Apache-2.0
"""`spool:///dir`: slips as files in a folder. Each file is complete; the same slip replaces its own file."""

import errno
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from schemas.private_files import FILE_MODE, UnsafePathError, private_folder
from tasks.printing.printers.driver import (
    PrinterError,
    PrinterInterruptedError,
    PrinterStatus,
    PrinterUnavailableError,
)

_DESCRIPTIONS = {
    errno.ENOSPC: "the spool disk is full",
    errno.EDQUOT: "the spool disk is full",
    errno.EACCES: "the spool folder may not be written",
    errno.EPERM: "the spool folder may not be written",
    errno.EROFS: "the spool folder is on a read-only disk",
    errno.ENOTDIR: "the spool folder is not a folder",
    errno.EEXIST: "the spool folder is not a folder",
    errno.EFBIG: "the spool disk is full",
}


_GROUP_READS: Final = 0o640


class SpoolPrinter:
    """A folder that receives slips as PDF files.

    Only the worker's user may read them. If the folder has the set-group-ID bit, its group may read them as well.
    """

    can_repeat: Final = True
    writes_files: Final = True
    tracks_jobs: Final = False
    language: Final = "pdf"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def send(self, document: bytes, *, job_name: str, on_first_byte: Callable[[], None]) -> str:
        """Write the slip to a temporary file, sync it to the disk, then rename it in one step."""
        name = re.sub(r"[^A-Za-z0-9._-]", "_", job_name) + ".pdf"
        temporary = self._folder / f".{name}.{secrets.token_hex(4)}"
        try:
            with self._errors_as(PrinterUnavailableError):
                if self._folder.is_file() and not self._folder.is_symlink():
                    raise NotADirectoryError(errno.ENOTDIR, "not a folder")
                if not self._folder.is_dir():
                    private_folder(self._folder)
                with open(temporary, "xb", opener=_open_private) as file:
                    if self._folder.stat().st_mode & stat.S_ISGID:
                        os.fchmod(file.fileno(), _GROUP_READS)
                    file.write(document)
                    file.flush()
                    os.fsync(file.fileno())
            on_first_byte()
            with self._errors_as(PrinterUnavailableError):
                temporary.replace(self._folder / name)
            with self._errors_as(PrinterInterruptedError):
                self._sync_folder()
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        return name

    def status(self) -> PrinterStatus:
        """Check write access to the folder, or to the nearest existing one above it."""
        existing = next(folder for folder in (self._folder, *self._folder.parents) if os.access(folder, os.F_OK))
        if not existing.is_dir():
            return PrinterStatus(ready=False, description=f"the spool folder is not a folder ({self._folder})")
        if not os.access(existing, os.W_OK | os.X_OK):
            return PrinterStatus(ready=False, description=f"the spool folder may not be written ({self._folder})")
        return PrinterStatus(ready=True, description="ready")

    def _sync_folder(self) -> None:
        """Sync the new name: without this, a power failure may remove a slip that was recorded as sent."""
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @contextmanager
    def _errors_as(self, kind: type[PrinterError]) -> Iterator[None]:
        try:
            yield
        except UnsafePathError as error:
            raise kind(str(error)) from error
        except OSError as error:
            description = _DESCRIPTIONS.get(error.errno or 0, error.strerror or type(error).__name__)
            raise kind(f"{description} ({self._folder})") from error


def _open_private(path: str, flags: int) -> int:
    """Open a new file that only this user may read, whatever the umask is."""
    file = os.open(path, flags | os.O_NOFOLLOW, FILE_MODE)
    os.fchmod(file, FILE_MODE)
    return file
