# SPDX-License-Identifier: Apache-2.0
"""`spool:///dir`: slips as files in a folder. What is there is whole; the same slip again replaces itself."""

import errno
import os
import re
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tasks.printing.printers.driver import PrinterUnavailableError

_WORDS = {
    errno.ENOSPC: "the spool disk is full",
    errno.EDQUOT: "the spool disk is full",
    errno.EACCES: "the spool folder may not be written",
    errno.EPERM: "the spool folder may not be written",
    errno.EROFS: "the spool folder is on a read-only disk",
    errno.ENOTDIR: "the spool folder is no folder",
    errno.EEXIST: "the spool folder is no folder",
    errno.EFBIG: "the spool disk is full",
}


class SpoolPrinter:
    """A folder that takes slips as PDF files."""

    can_repeat = True
    knows_its_jobs = False
    language = "pdf"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def send(self, document: bytes, *, job_name: str, on_first_byte: Callable[[], None]) -> str:
        """Write the slip beside its place, sync it to the disk, then move it there in one step."""
        name = re.sub(r"[^A-Za-z0-9._-]", "_", job_name) + ".pdf"
        temporary: Path | None = None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            handle, path = tempfile.mkstemp(prefix=f".{name}.", dir=self._folder)
            temporary = Path(path)
            with os.fdopen(handle, "wb") as file:
                file.write(document)
                file.flush()
                os.fsync(file.fileno())
            on_first_byte()
            temporary.replace(self._folder / name)
        except OSError as error:
            if temporary is not None:
                with suppress(OSError):
                    temporary.unlink()
            why = _WORDS.get(error.errno or 0, error.strerror or type(error).__name__)
            raise PrinterUnavailableError(f"{why} ({self._folder})") from error
        return name
