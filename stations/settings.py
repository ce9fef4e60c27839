# SPDX-License-Identifier: Apache-2.0
"""Settings of a desk: one typed object, read when asked for."""

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from schemas.broker_url import read_broker_url
from schemas.configuration import SideSettings
from schemas.topology import CODE_PATTERN
from stations.journal.file import JournalLimits


class StationSettings(SideSettings):
    """What a desk needs to know. Environment prefix `BOOKDROP_STATION_`, table `[station]`."""

    model_config = SettingsConfigDict(env_prefix="BOOKDROP_STATION_")
    table: ClassVar[str] = "station"

    code: Annotated[str, Field(pattern=CODE_PATTERN, max_length=40)]
    """The station's code, as the server knows it, such as `main-desk-1`."""
    key: Annotated[SecretStr, Field(min_length=1)]
    """The station's key; signs what it says."""
    broker_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    """The broker; without a setting of its own, BOOKDROP_BROKER_URL is taken."""
    journal: Path | None = None
    """File in which scans are kept until they are answered; by default one per station in the user's state folder."""
    journal_max_unanswered: int = Field(default=20_000, ge=1, le=1_000_000)
    """How many scans may wait here without an answer; a scan beyond that is refused before it is taken."""
    journal_min_free_mb: int = Field(default=50, ge=0, le=1_000_000_000)
    """How much of the journal's disk is left alone, in MB; with less a scan is refused before it is taken."""
    unanswered_warning_hours: float = Field(default=4.0, gt=0, le=720)
    """After how many hours without an answer the desk warns."""
    scanner_prefix: str = ""
    """What the scanner puts before each barcode, if it does."""
    print_slip: bool = True
    """Whether a scan wants a slip."""
    patron_card_pattern: str | None = None
    """Regular expression of our patron cards' numbers; a scan that matches as a whole never leaves the desk."""
    reply_timeout_seconds: float = Field(default=15.0, gt=0, le=3600)
    """How long a command waits for its answers, in seconds."""
    retry_interval_seconds: float = Field(default=3.0, gt=0, le=30)
    """After how long an unanswered event is asked again for the first time, in seconds."""

    @field_validator("broker_url")
    @classmethod
    def _known_broker(cls, url: SecretStr) -> SecretStr:
        read_broker_url(url.get_secret_value())
        return url

    @field_validator("patron_card_pattern")
    @classmethod
    def _is_a_pattern(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from None
        return pattern

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Read the settings, with the workers' broker as the fallback. Raises `ConfigurationError`."""
        settings = super().load(**overrides)
        common = os.environ.get("BOOKDROP_BROKER_URL")
        if common and "broker_url" not in settings.model_fields_set:
            return settings.model_copy(update={"broker_url": SecretStr(common)})
        return settings

    @property
    def journal_limits(self) -> JournalLimits:
        """How far the journal may grow."""
        return JournalLimits(self.journal_max_unanswered, self.journal_min_free_mb * 1_000_000)

    @property
    def unanswered_warning_after(self) -> timedelta:
        """After how long without an answer the desk warns."""
        return timedelta(hours=self.unanswered_warning_hours)

    @property
    def journal_file(self) -> Path:
        """Where the journal is."""
        if self.journal is not None:
            return self.journal.expanduser()
        state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        return state / "bookdrop" / f"{self.code}.journal"
