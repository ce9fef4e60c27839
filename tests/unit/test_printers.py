# SPDX-License-Identifier: Apache-2.0
"""Printers by URI, and the folder that takes slips."""

import os
import resource
import signal
import stat

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tasks.printing.printers.cups import queue_address
from tasks.printing.printers.driver import PrinterUnavailableError, WrongPrinterUriError, is_job_tracking
from tasks.printing.printers.factory import KINDS, open_printer
from tasks.printing.printers.raw import _parse_status


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

    with pytest.raises(PrinterUnavailableError, match="not a folder"):
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


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("ipp:///ipp/print", "names no host: write ipp://host/ipp/print"),
        ("ipps://", "names no host: write ipps://host/ipp/print"),
        ("ipp://host:many/ipp/print", "is not a valid printer URI: Port"),
        ("ipp://anna:secret@host/ipp/print", "ipp:// takes no user and no password"),
        ("ipp://host/ipp/print?page=1", "ipp:// takes nothing after the path"),
        ("ipps://host/ipp/print?verify=no", "only certificate= is known"),
        ("ipps://host/ipp/print?certificate=relative.pem", "a file's whole path, or the word any"),
        ("ipps://host/ipp/print?certificate=/no/such.pem", "not a readable certificate"),
        ("socket://", "write socket://host:9100"),
        ("socket://host:9100/queue", "names no host and port alone: write socket://host:9100"),
        ("socket://host:99999", "is not a valid printer URI: Port"),
        ("lp://", "names no queue: write lp://queue"),
        ("lp:queue", "names no queue: write lp://queue"),
        ("lp://queue/path", "names no queue: write lp://queue"),
        ("lp://server:631/printers/queue", "names no queue: write lp://queue"),
    ],
)
def test_a_uri_that_lacks_something_says_what(uri, words):
    """Whoever mistypes a printer reads what would be right; a password is never repeated."""
    with pytest.raises(WrongPrinterUriError) as raised:
        open_printer(uri)

    assert words in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("uri", "language", "can_repeat", "tracks_jobs"),
    [
        ("spool:///var/spool/slips", "pdf", True, False),
        ("ipp://printer.library.example", "pdf", False, True),
        ("ipps://[2001:db8::1]:443/ipp/print?certificate=any", "pdf", False, True),
        ("socket://10.0.0.7", "zpl", False, False),
        ("lp://Front_Desk-2", "pdf", False, True),
    ],
)
def test_each_kind_of_uri_opens_its_printer(uri, language, can_repeat, tracks_jobs):
    """A printer says what it takes and what it can tell before anything is connected."""
    driver = open_printer(uri)

    assert (driver.language, driver.can_repeat, driver.tracks_jobs) == (language, can_repeat, tracks_jobs)
    assert is_job_tracking(driver) == tracks_jobs


@pytest.mark.parametrize(
    ("server", "uri"),
    [
        ("/run/cups/cups.sock", "ipp://localhost/printers/Slips"),
        ("print.library.example", "ipp://print.library.example:631/printers/Slips"),
        ("print.library.example:8631", "ipp://print.library.example:8631/printers/Slips"),
        ("print.library.example:8631/version=1.1", "ipp://print.library.example:8631/printers/Slips"),
        ("[2001:db8::1]:631", "ipp://[2001:db8::1]:631/printers/Slips"),
    ],
)
def test_queue_is_looked_for_where_cups_commands_look(server, uri):
    """The print server is the one that `lp` would use."""
    assert queue_address("Slips", {"CUPS_SERVER": server}).uri == uri


def test_spool_says_how_it_is(tmp_path):
    """A folder that is there, or can be made, is ready; one whose place is taken is not."""
    (tmp_path / "slips").write_text("not a folder")

    assert open_printer(f"spool://{tmp_path}/new/folder").status().ready
    status = open_printer(f"spool://{tmp_path}/slips").status()
    assert (status.ready, "not a folder" in status.description) == (False, True)


@given(
    st.builds(str.__add__, st.sampled_from(["", *(f"{kind}://" for kind in KINDS), "ipps://h?certificate="]), st.text())
)
def test_any_uri_opens_a_printer_or_is_told(uri):
    """Whatever stands in the column: a driver, or words; nothing else is raised, and nothing is connected."""
    try:
        driver = open_printer(uri)
    except WrongPrinterUriError:
        return

    assert driver.language in {"pdf", "zpl"}


FIELDS = st.lists(st.text("0123456789 ,x", max_size=6), max_size=16).map(",".join)


@given(st.binary(max_size=200) | st.lists(FIELDS, max_size=4).map(lambda lines: "".join(f"\x02{x}\x03" for x in lines)))
@example("\x02030,1\x03\x02\x03")
def test_any_answer_of_a_label_printer_is_read(said):
    """Whatever comes back to ~HS, it is a status in words; one that is not ready says for what it waits."""
    status = _parse_status(said if isinstance(said, bytes) else said.encode())

    assert status.description
    assert status.ready == (not status.reasons)
