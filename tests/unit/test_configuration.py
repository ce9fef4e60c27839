# SPDX-License-Identifier: Apache-2.0
"""Settings of the workers: their sources, and the errors for wrong ones."""

import os

import pytest

from schemas.configuration import ConfigurationError
from workers.settings import WorkerSettings


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch, tmp_path):
    """No variable and no file of the machine's reaches these tests."""
    for name in list(os.environ):
        if name.startswith("BOOKDROP_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_variable_overrides_the_file(monkeypatch, tmp_path):
    """A variable overrides bookdrop.toml; the file overrides the default."""
    (tmp_path / "bookdrop.toml").write_text('[workers]\nlog_level = "debug"\nconcurrency = 3\n')
    monkeypatch.setenv("BOOKDROP_CONCURRENCY", "4")

    settings = WorkerSettings.load()

    assert (settings.log_level, settings.concurrency, settings.undo_window_minutes) == ("debug", 4, 10)


def test_secret_is_read_from_the_named_file(monkeypatch, tmp_path):
    """BOOKDROP_..._FILE names a file that contains the value."""
    (tmp_path / "secret").write_text("redis://:hidden@127.0.0.1/1\n")
    monkeypatch.setenv("BOOKDROP_BROKER_URL_FILE", str(tmp_path / "secret"))

    settings = WorkerSettings.load()

    assert settings.broker_url.get_secret_value() == "redis://:hidden@127.0.0.1/1"
    assert "hidden" not in repr(settings)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("BOOKDROP_BROKR_URL", "x", "Did you mean BOOKDROP_BROKER_URL"),
        ("BOOKDROP_DATABASE_URL", "mysql://x", "SQLite or PostgreSQL"),
        ("BOOKDROP_CONCURRENCY", "many", "BOOKDROP_CONCURRENCY"),
        ("BOOKDROP_CONFIG", "/no/such/file.toml", "no such file"),
        ("BOOKDROP_BROKER_URL_FILE", "/no/such/secret", "cannot be read"),
    ],
)
def test_wrong_variable_is_refused_with_its_name(monkeypatch, variable, value, words):
    """The error names an unknown or unusable variable, and what is accepted."""
    monkeypatch.setenv(variable, value)

    with pytest.raises(ConfigurationError, match=words):
        WorkerSettings.load()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[workers]\nbrokerurl = 'x'\n", "Did you mean broker_url"),
        ("[worker]\n", r"Did you mean \[workers\]"),
        ("not toml at all", "cannot be read as TOML"),
    ],
)
def test_wrong_file_is_refused_with_its_cause(tmp_path, content, words):
    """The error names an unknown key or table, or the file that is not TOML."""
    (tmp_path / "bookdrop.toml").write_text(content)

    with pytest.raises(ConfigurationError, match=words):
        WorkerSettings.load()


def test_station_variables_are_ignored_by_a_worker(monkeypatch):
    """Both sides' variables may be set in one environment."""
    monkeypatch.setenv("BOOKDROP_STATION_CODE", "main-desk-1")

    assert WorkerSettings.load().role == "all"
