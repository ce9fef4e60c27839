# SPDX-License-Identifier: Apache-2.0
"""Printers by URI, and the folder that takes slips."""

import os
import resource
import signal
import stat

import pytest

from tasks.printing.printers.driver import PrinterUnavailableError, WrongPrinterUriError
from tasks.printing.printers.opening import open_printer


def test_spool_writes_whole_files(tmp_path):
    """A slip appears under its job's name, whole; the first byte is announced before it is there."""
    printer = open_printer(f"spool://{tmp_path}/new/folder")
    seen_before = []

    name = printer.send(
        b"%PDF",
        job_name="job-1",
        on_first_byte=lambda: seen_before.append((tmp_path / "new/folder/job-1.pdf").exists()),
    )

    assert (tmp_path / "new/folder" / name).read_bytes() == b"%PDF"
    assert seen_before == [False]
    assert [path.name for path in (tmp_path / "new/folder").iterdir()] == ["job-1.pdf"]


def test_same_slip_again_replaces_itself(tmp_path):
    """Sent again, a slip is still one file: this printer can repeat."""
    printer = open_printer(f"spool://{tmp_path}")

    for body in (b"one", b"two"):
        printer.send(body, job_name="job-1", on_first_byte=lambda: None)

    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"two"]
    assert printer.can_repeat


def test_slip_that_may_not_leave_leaves_nothing(tmp_path):
    """Stopped at the first byte, because another worker has the job: no slip, and nothing lies about."""
    printer = open_printer(f"spool://{tmp_path}")

    def stop():
        raise LookupError

    with pytest.raises(LookupError):
        printer.send(b"x", job_name="job-1", on_first_byte=stop)

    assert list(tmp_path.iterdir()) == []


def test_slip_can_be_read_by_whom_the_umask_allows(tmp_path):
    """Who prints from the folder is another user than who writes there: a slip is as readable as any new file."""
    before = os.umask(0o022)
    try:
        open_printer(f"spool://{tmp_path}").send(b"x", job_name="job-1", on_first_byte=lambda: None)
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "job-1.pdf").stat().st_mode) == 0o644


def test_job_name_stays_in_the_folder(tmp_path):
    """A name with slashes leads nowhere else."""
    printer = open_printer(f"spool://{tmp_path}/in")

    printer.send(b"x", job_name="../../etc/passwd", on_first_byte=lambda: None)

    assert [path.parent for path in tmp_path.rglob("*.pdf")] == [tmp_path / "in"]


def test_a_file_in_its_place_is_told(tmp_path):
    """A spool that is no folder is a printer that is away, in words."""
    (tmp_path / "slips").write_text("not a folder")

    with pytest.raises(PrinterUnavailableError, match="no folder"):
        open_printer(f"spool://{tmp_path}/slips").send(b"x", job_name="j", on_first_byte=lambda: None)


def test_full_disk_is_told_and_leaves_nothing(tmp_path):
    """A full disk is a printer that is away; no half slip lies about."""
    printer = open_printer(f"spool://{tmp_path}")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))  # a disk on which ten bytes are left
    try:
        with pytest.raises(PrinterUnavailableError):
            printer.send(b"x" * 100, job_name="j", on_first_byte=lambda: None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("uri", ["", "spool:", "spool:///", "spool://host/dir", "ftp://x", "main-slips", "/var/spool"])
def test_wrong_uri_is_told(uri):
    """What is no printer is refused, with what would be right."""
    with pytest.raises(WrongPrinterUriError, match="spool://"):
        open_printer(uri)
