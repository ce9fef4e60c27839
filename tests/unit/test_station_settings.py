# SPDX-License-Identifier: Apache-2.0
"""Settings of a desk."""

import os
from pathlib import Path

import pytest

from schemas.configuration import ConfigurationError
from stations.settings import StationSettings


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings but those of the test."""
    for name in list(os.environ):
        if name.startswith("BOOKDROP_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOOKDROP_STATION_CODE", "main-desk-1")
    monkeypatch.setenv("BOOKDROP_STATION_KEY", "a key")


def test_two_settings_are_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a code and a key the rest has its defaults; the journal is one per station."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    settings = StationSettings.load()

    assert settings.broker_url.get_secret_value() == "redis://127.0.0.1:6379/0"
    assert settings.journal_file == tmp_path / "bookdrop" / "main-desk-1.journal"
    assert (settings.print_slip, settings.reply_timeout_seconds, settings.retry_interval_seconds) == (True, 15, 3)


@pytest.mark.parametrize(
    ("own", "expected"), [(None, "amqp://all"), ("amqp://own", "amqp://own")], ids=["common", "own"]
)
def test_the_broker_of_all_is_the_fallback(monkeypatch: pytest.MonkeyPatch, own: str | None, expected: str) -> None:
    """BOOKDROP_BROKER_URL is taken when the station names no broker of its own."""
    monkeypatch.setenv("BOOKDROP_BROKER_URL", "amqp://all")
    if own:
        monkeypatch.setenv("BOOKDROP_STATION_BROKER_URL", own)

    assert StationSettings.load().broker_url.get_secret_value() == expected


def test_the_file_wins_over_the_common_broker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A broker under [station] in bookdrop.toml is the station's own."""
    (tmp_path / "bookdrop.toml").write_text('[station]\nbroker_url = "amqp://file"\n')
    monkeypatch.setenv("BOOKDROP_BROKER_URL", "amqp://all")

    assert StationSettings.load().broker_url.get_secret_value() == "amqp://file"


@pytest.mark.parametrize(
    ("name", "value"),
    [("CODE", "Main Desk"), ("KEY", ""), ("PATRON_CARD_PATTERN", "(("), ("RETRY_INTERVAL_SECONDS", "0")],
)
def test_what_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A value that cannot be used is refused with the setting's name."""
    monkeypatch.setenv(f"BOOKDROP_STATION_{name}", value)

    with pytest.raises(ConfigurationError, match=f"BOOKDROP_STATION_{name}"):
        StationSettings.load()


def test_the_key_is_not_shown() -> None:
    """The key does not get into a log by accident."""
    assert "a key" not in repr(StationSettings.load())
