# SPDX-License-Identifier: Apache-2.0
"""Printers by URI: the folder of slips, the accepted URIs, and the status of label printers."""

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


def test_spool_writes_a_complete_file_after_announcing_the_first_byte(tmp_path):
    """The slip appears under its job's name, and no temporary file remains."""
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


def test_repeated_slip_replaces_its_file(tmp_path):
    """A slip that is sent again is still one file, so this printer can repeat."""
    printer = open_printer(f"spool://{tmp_path}")

    for body in (b"one", b"two"):
        printer.send(body, job_name="job-1", on_first_byte=lambda: None)

    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"two"]
    assert printer.can_repeat


def test_stop_at_the_first_byte_leaves_no_file(tmp_path):
    """A job that another worker has claimed leaves no slip and no temporary file."""
    printer = open_printer(f"spool://{tmp_path}")

    def stop():
        raise LookupError

    with pytest.raises(LookupError):
        printer.send(b"x", job_name="job-1", on_first_byte=stop)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize(("folder_mode", "slip_mode"), [(0o755, 0o600), (0o700, 0o600), (0o2750, 0o640)])
def test_slip_is_readable_by_the_group_of_a_set_group_id_folder_only(tmp_path, umask, folder_mode, slip_mode):
    """The worker's user alone may read a slip, whatever its umask is; a folder with the bit permits its group."""
    folder = tmp_path / "slips"
    folder.mkdir()
    folder.chmod(folder_mode)
    before = os.umask(umask)
    try:
        open_printer(f"spool://{folder}").send(b"x", job_name="job-1", on_first_byte=lambda: None)
    finally:
        os.umask(before)

    assert stat.S_IMODE((folder / "job-1.pdf").stat().st_mode) == slip_mode


def test_new_spool_folder_is_private(tmp_path):
    """A folder that the worker creates has mode 0700, and so have the missing folders above it."""
    before = os.umask(0o000)
    try:
        open_printer(f"spool://{tmp_path}/a/b").send(b"x", job_name="job-1", on_first_byte=lambda: None)
    finally:
        os.umask(before)

    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "a/b")] == [0o700, 0o700]


def test_job_name_with_slashes_stays_in_the_folder(tmp_path):
    """The file is written in the folder of the URI."""
    printer = open_printer(f"spool://{tmp_path}/in")

    printer.send(b"x", job_name="../../etc/passwd", on_first_byte=lambda: None)

    assert [path.parent for path in tmp_path.rglob("*.pdf")] == [tmp_path / "in"]


def test_file_in_place_of_the_folder_is_an_unavailable_printer(tmp_path):
    """The error names the cause."""
    (tmp_path / "slips").write_text("not a folder")

    with pytest.raises(PrinterUnavailableError, match="not a folder"):
        open_printer(f"spool://{tmp_path}/slips").send(b"x", job_name="j", on_first_byte=lambda: None)


def test_full_disk_is_an_unavailable_printer_and_leaves_no_file(tmp_path):
    """No incomplete slip remains."""
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
def test_uri_of_no_printer_is_refused_with_an_example(uri):
    """The error contains an accepted form."""
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
        ("ipps://host/ipp/print?verify=no", "only certificate= and ca= are known"),
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
def test_incomplete_uri_is_refused_with_the_missing_part(uri, words):
    """The error contains the correct form, and never a password."""
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
def test_uri_opens_the_driver_of_its_kind(uri, language, can_repeat, tracks_jobs):
    """Language and abilities of a driver are known before it connects."""
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
def test_queue_address_follows_the_cups_server_variable(server, uri):
    """The print server is the one that `lp` uses."""
    assert queue_address("Slips", {"CUPS_SERVER": server}).uri == uri


def test_spool_status_is_ready_if_the_folder_can_be_written(tmp_path):
    """A folder that exists or can be created is ready; a path below a file is not."""
    (tmp_path / "slips").write_text("not a folder")

    assert open_printer(f"spool://{tmp_path}/new/folder").status().ready
    status = open_printer(f"spool://{tmp_path}/slips").status()
    assert (status.ready, "not a folder" in status.description) == (False, True)


@given(
    st.builds(str.__add__, st.sampled_from(["", *(f"{kind}://" for kind in KINDS), "ipps://h?certificate="]), st.text())
)
def test_any_uri_opens_a_driver_or_is_refused(uri):
    """No other exception is raised, and nothing is connected."""
    try:
        driver = open_printer(uri)
    except WrongPrinterUriError:
        return

    assert driver.language in {"pdf", "zpl"}


FIELDS = st.lists(st.text("0123456789 ,x", max_size=6), max_size=16).map(",".join)


@given(st.binary(max_size=200) | st.lists(FIELDS, max_size=4).map(lambda lines: "".join(f"\x02{x}\x03" for x in lines)))
@example("\x02030,1\x03\x02\x03")
def test_any_response_of_a_label_printer_is_a_status(response):
    """Any response to ~HS gives a status text; a printer that is not ready has reasons."""
    status = _parse_status(response if isinstance(response, bytes) else response.encode())

    assert status.description
    assert status.ready == (not status.reasons)
