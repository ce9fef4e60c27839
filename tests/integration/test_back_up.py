# SPDX-License-Identifier: Apache-2.0
"""deploy/backup/back-up: a complete copy during writes, and the deletion of old copies only."""

import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy/backup/back-up"


@pytest.fixture
def back_up(tmp_path):
    """Run the script on a database; return its process and the folder of copies."""
    folder = tmp_path / "copies"

    def run(url, **settings):
        clean = {name: value for name, value in os.environ.items() if not name.startswith("BOOKDROP_")}
        done = subprocess.run(
            [SCRIPT, folder], env={**clean, "BOOKDROP_DATABASE_URL": url, **settings},
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        return done, folder

    return run


INSERT = "INSERT INTO branches (code, name, library, address) VALUES (?, '', '', '[]')"


def test_sqlite_copy_contains_committed_rows_only(back_up, sqlite_url):
    """During a transaction of another process the copy contains all rows committed before, and none of the transaction."""
    writer = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    writer.execute(INSERT, ("kept",))
    writer.execute("BEGIN IMMEDIATE")
    writer.execute(INSERT, ("not-yet",))

    done, folder = back_up(sqlite_url)
    writer.execute("ROLLBACK")
    writer.close()

    assert done.returncode == 0, done.stderr
    [copy] = folder.iterdir()
    with closing(sqlite3.connect(copy)) as copied:
        assert copied.execute("SELECT code FROM branches").fetchall() == [("kept",)]
    assert copy.suffix == ".sqlite"
    assert copy.stat().st_mode & 0o077 == 0


def test_newest_copies_are_kept(back_up, sqlite_url, tmp_path):
    """The configured number of copies is kept, the newest ones; other files are not deleted."""
    folder = tmp_path / "copies"
    folder.mkdir()
    for name in ("bookdrop-20250101T000000Z.dump", "bookdrop-20250102T000000Z.sqlite", "unrelated.dump"):
        (folder / name).touch()

    done, _ = back_up(sqlite_url, KEEP="2")

    left = sorted(path.name for path in folder.iterdir())
    assert left == ["bookdrop-20250102T000000Z.sqlite", Path(done.stdout.strip()).name, "unrelated.dump"]


def test_folder_of_copies_is_restricted(back_up, sqlite_url, tmp_path):
    """A folder with wide permissions loses those of group and others; the copies are readable by their owner alone."""
    folder = tmp_path / "copies"
    folder.mkdir()
    folder.chmod(0o777)

    done, _ = back_up(sqlite_url)

    assert done.returncode == 0, done.stderr
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in folder.iterdir()] == [0o600]


@pytest.mark.parametrize("url", ["sqlite:///no-such-file.db", "postgresql://127.0.0.1:1/none", "mysql://x:secret@y/z"])
def test_failed_copy_ends_with_an_error(back_up, url):
    """A failed copy ends with an error without the password, and leaves no file."""
    done, folder = back_up(url)

    assert done.returncode != 0
    assert done.stderr
    assert "secret" not in done.stderr
    assert list(folder.iterdir()) == []
