# SPDX-License-Identifier: Apache-2.0
"""Another user of the machine plants folders, links and files where bookdrop stores its own: they are refused."""

import json
import os
import stat
import subprocess
import sys
from contextlib import closing

import pytest
from sqlalchemy import text

from schemas.database import open_engine
from schemas.private_files import UnsafePathError, private_folder, runtime_folder, touch_private
from stations.journal.file import JournalFile
from tests.polling import wait_until
from tests.processes import stop
from workers.embedded.data_dir import DataDirectory
from workers.supervision.heartbeat import age

OTHER_USER = 54321
BEGIN_IMMEDIATE = """
import sqlite3, sys
sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None).execute("BEGIN IMMEDIATE")
"""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")


@pytest.fixture
def shared(tmp_path, monkeypatch):
    """A temporary folder that all users of the machine may write, with the sticky bit, as /tmp has it."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def start(role, shared, **settings):
    """Start a worker of a role with a temporary folder; return its process."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BOOKDROP_")}
    return subprocess.Popen(
        [sys.executable, "-m", "workers.cli", "worker", role],
        env={**environment, "TMPDIR": str(shared), **settings},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_new_folder_has_mode_0700_whatever_the_umask_is(shared, umask):
    """A umask that permits everything, or nothing, does not change the mode."""
    before = os.umask(umask)
    try:
        private_folder(shared / "new")
    finally:
        os.umask(before)

    assert mode(shared / "new") == 0o700


def test_own_folder_with_wide_permissions_is_restricted(shared):
    """A folder of an earlier version loses the permissions of others."""
    (shared / "old").mkdir(mode=0o777)
    (shared / "old").chmod(0o777)

    private_folder(shared / "old")

    assert mode(shared / "old") == 0o700


def test_planted_link_to_a_folder_is_refused(shared, tmp_path):
    """A link is refused, also to a folder of this user, and the target stays as it is."""
    target = tmp_path / "target"
    target.mkdir(mode=0o755)
    (shared / "link").symlink_to(target)

    with pytest.raises(UnsafePathError, match="symbolic link"):
        private_folder(shared / "link")

    assert mode(target) == 0o755


@pytest.mark.parametrize("plant", ["link", "dangling link", "named pipe", "folder"])
def test_planted_heartbeat_is_refused(shared, tmp_path, plant):
    """A heartbeat follows no link, waits for no reader of a named pipe, and creates no file elsewhere."""
    target = tmp_path / "target"
    path = shared / "beat"
    match plant:
        case "link":
            target.write_text("content")
            os.utime(target, (1, 1))
            path.symlink_to(target)
        case "dangling link":
            path.symlink_to(target)
        case "named pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()

    with pytest.raises(UnsafePathError) as refused:
        touch_private(path)

    assert str(path) in str(refused.value)
    assert age(path) is None
    assert not target.exists() or target.stat().st_mtime == 1


@as_root
def test_folder_and_file_of_another_user_are_refused(shared):
    """Both are refused with the id of their owner."""
    (shared / "folder").mkdir()
    (shared / "file").touch()
    for name in ("folder", "file"):
        os.chown(shared / name, OTHER_USER, OTHER_USER)

    with pytest.raises(UnsafePathError, match=str(OTHER_USER)):
        private_folder(shared / "folder")
    with pytest.raises(UnsafePathError, match=str(OTHER_USER)):
        touch_private(shared / "file")


@pytest.mark.parametrize("role", ["returns", "housekeeping"])
def test_worker_does_not_start_on_a_planted_runtime_folder(shared, tmp_path, role):
    """The default folder of heartbeats is a link of another user: the worker names it and exits with code 2."""
    (tmp_path / "target").mkdir()
    (shared / runtime_folder().name).symlink_to(tmp_path / "target")

    process = start(role, shared)
    output, _ = process.communicate(timeout=300)

    assert process.returncode == 2
    assert f"{shared / runtime_folder().name} is a symbolic link" in output
    assert "Traceback" not in output
    assert list((tmp_path / "target").iterdir()) == []


def test_worker_does_not_start_on_a_planted_heartbeat_file(shared, tmp_path):
    """A named heartbeat file in a shared folder is a link to a file that does not exist: the worker does not create it."""
    (shared / "beat").symlink_to(tmp_path / "target")

    process = start("returns", shared, BOOKDROP_HEARTBEAT_FILE=str(shared / "beat"))
    output, _ = process.communicate(timeout=300)

    assert process.returncode == 2
    assert "is a symbolic link" in output
    assert not (tmp_path / "target").exists()


@pytest.mark.databases("sqlite")
def test_default_heartbeat_is_in_a_private_folder(shared, broker_url, database_url):
    """Without the setting a worker creates its folder with mode 0700 and a file with 0600, under a umask of 0."""
    before = os.umask(0)
    try:
        process = start("returns", shared, BOOKDROP_BROKER_URL=broker_url, BOOKDROP_DATABASE_URL=database_url)
    finally:
        os.umask(before)
    beat = runtime_folder() / "returns.heartbeat"
    try:
        wait_until(beat.exists, "the worker emits a heartbeat")

        assert (mode(beat.parent), mode(beat)) == (0o700, 0o600)
    finally:
        assert process.stdout is not None
        process.stdout.close()
        stop(process)


def test_embedded_default_refuses_a_planted_folder_of_its_socket(shared, tmp_path):
    """The path of the data directory is too long for a socket, and the folder of the socket is a link."""
    (tmp_path / "target").mkdir()
    (shared / runtime_folder().name).symlink_to(tmp_path / "target")
    directory = DataDirectory(tmp_path / ("a" * 90))

    with pytest.raises(UnsafePathError, match="symbolic link"):
        directory.prepare()

    assert directory.socket.parent == shared / runtime_folder().name


@as_root
def test_embedded_default_refuses_a_data_directory_of_another_user(shared):
    """A planted data directory could contain settings, keys and a database of its owner."""
    (shared / ".bookdrop").mkdir()
    os.chown(shared / ".bookdrop", OTHER_USER, OTHER_USER)

    with pytest.raises(UnsafePathError, match=str(OTHER_USER)):
        DataDirectory(shared / ".bookdrop").prepare()


@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_sqlite_files_are_private_whatever_the_umask_is(tmp_path, umask):
    """The database and its side files have mode 0600 from the moment of their creation."""
    before = os.umask(umask)
    try:
        engine = open_engine(f"sqlite:///{tmp_path}/new.db")
        with engine.connect() as connection:
            connection.execute(text("CREATE TABLE t (a INTEGER)"))
            files = sorted(tmp_path.iterdir())
            modes = {path.name: mode(path) for path in files}
        engine.dispose()
    finally:
        os.umask(before)

    assert modes == {"new.db": 0o600, "new.db-shm": 0o600, "new.db-wal": 0o600}


def test_existing_database_is_restricted_when_a_process_connects(tmp_path):
    """The files of an earlier version with mode 0644 become 0600, while another process has them open."""
    path = tmp_path / "old.db"
    engine = open_engine(f"sqlite:///{path}")
    with engine.connect() as holder:
        holder.execute(text("CREATE TABLE t (a INTEGER)"))
        for each in tmp_path.iterdir():
            each.chmod(0o644)
        second = open_engine(f"sqlite:///{path}")
        with second.connect().execution_options(bookdrop_read_only=True) as connection:
            connection.execute(text("SELECT 1"))

        assert {mode(each) for each in tmp_path.iterdir()} == {0o600}
    engine.dispose()
    second.dispose()


def test_connecting_does_not_release_the_locks_of_another_connection(tmp_path):
    """A second connection of one process opens no descriptor of its own to the file: closing one would drop all locks."""
    path = tmp_path / "locked.db"
    engine = open_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (a INTEGER)"))
        other = open_engine(f"sqlite:///{path}")
        with other.connect().execution_options(bookdrop_read_only=True) as reading:
            reading.execute(text("SELECT 1"))
        blocked = subprocess.run(
            [sys.executable, "-c", BEGIN_IMMEDIATE, str(path)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    engine.dispose()
    other.dispose()

    assert "database is locked" in blocked.stderr


def test_journal_of_an_earlier_version_is_restricted(tmp_path):
    """A journal with mode 0644 becomes 0600 when its station opens it."""
    path = tmp_path / "station.journal"
    with closing(JournalFile(path, "main-desk-1")):
        pass
    path.chmod(0o644)
    with closing(JournalFile(path, "main-desk-1")):
        modes = {mode(each) for each in tmp_path.iterdir()}

    assert modes == {0o600}


@as_root
@pytest.mark.databases("sqlite")
def test_doctor_names_files_that_other_users_may_read(deployment, library, tmp_path):
    """Files that a connection may not restrict, and an open spool folder: the doctor names each with the command."""
    database = tmp_path / "bookdrop.db"
    os.chown(database, OTHER_USER, OTHER_USER)
    database.chmod(0o644)
    (library.spool / "main").mkdir(mode=0o755)
    (library.spool / "main").chmod(0o755)

    done = deployment.bookdrop("doctor", "--json")
    findings = json.loads(done.stdout)

    [file] = [each for each in findings if "may read" in each["message"]]
    [folder] = [each for each in findings if "may use the folder" in each["message"]]
    assert not file["ok"]
    assert f"chmod 600 {database.resolve()}" in file["advice"]
    assert str(OTHER_USER) in file["advice"]
    assert f"chmod 700 {library.spool / 'main'}" in folder["advice"]
