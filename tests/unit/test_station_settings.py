# SPDX-License-Identifier: Apache-2.0
"""Settings of a station."""

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


def test_code_and_key_are_sufficient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All other settings have defaults; each station has a journal of its own code."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    settings = StationSettings.load()

    assert settings.broker_url.get_secret_value() == "redis://127.0.0.1:6379/0"
    assert settings.journal_file == tmp_path / "bookdrop" / "main-desk-1.journal"
    assert (settings.print_slip, settings.reply_timeout_seconds, settings.retry_interval_seconds) == (True, 15, 3)


@pytest.mark.parametrize(
    ("own", "expected"), [(None, "amqp://all"), ("amqp://own", "amqp://own")], ids=["common", "own"]
)
def test_common_broker_is_the_default(monkeypatch: pytest.MonkeyPatch, own: str | None, expected: str) -> None:
    """BOOKDROP_BROKER_URL is used if the station has no broker URL."""
    monkeypatch.setenv("BOOKDROP_BROKER_URL", "amqp://all")
    if own:
        monkeypatch.setenv("BOOKDROP_STATION_BROKER_URL", own)

    assert StationSettings.load().broker_url.get_secret_value() == expected


def test_broker_in_the_file_overrides_the_common_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The broker under [station] in bookdrop.toml is the station's."""
    (tmp_path / "bookdrop.toml").write_text('[station]\nbroker_url = "amqp://file"\n')
    monkeypatch.setenv("BOOKDROP_BROKER_URL", "amqp://all")

    assert StationSettings.load().broker_url.get_secret_value() == "amqp://file"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CODE", "Main Desk"),
        ("KEY", ""),
        ("PATRON_CARD_PATTERN", "(("),
        ("RETRY_INTERVAL_SECONDS", "0"),
        ("CHECK_DIGIT", "mod11"),
    ],
)
def test_unusable_value_is_refused_with_the_setting_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """The error names the variable."""
    monkeypatch.setenv(f"BOOKDROP_STATION_{name}", value)

    with pytest.raises(ConfigurationError, match=f"BOOKDROP_STATION_{name}"):
        StationSettings.load()


def test_key_is_not_in_the_representation() -> None:
    """A log of the settings does not contain the key."""
    assert "a key" not in repr(StationSettings.load())
