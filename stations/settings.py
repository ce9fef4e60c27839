# SPDX-License-Identifier: Apache-2.0
"""The station's settings as one typed object, read on demand."""

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from schemas.barcodes import ScannerFormat
from schemas.broker_url import read_broker_url
from schemas.configuration import ProgramSettings
from schemas.topology import CODE_PATTERN
from stations.journal.file import JournalLimits


class StationSettings(ProgramSettings):
    """Settings of one station. Environment prefix `BOOKDROP_STATION_`, table `[station]`."""

    model_config = SettingsConfigDict(env_prefix="BOOKDROP_STATION_")
    table: ClassVar[str] = "station"

    code: Annotated[str, Field(pattern=CODE_PATTERN, max_length=40)]
    """Code of the station, as registered in the database, for example `main-desk-1`."""
    key: Annotated[SecretStr, Field(min_length=1)]
    """Key of the station, with which it signs its events."""
    broker_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    """URL of the broker; without this setting the station uses `BOOKDROP_BROKER_URL`."""
    journal: Path | None = None
    """File that stores scans until their replies arrive; by default one per station in the user's state folder."""
    journal_max_unanswered: int = Field(default=20_000, ge=1, le=1_000_000)
    """Maximum number of scans without a reply; a further scan is rejected before it is stored."""
    journal_min_free_mb: int = Field(default=50, ge=0, le=1_000_000_000)
    """Space in MB that must stay free on the journal's disk; with less, a scan is rejected before it is stored."""
    unanswered_warning_hours: float = Field(default=4.0, gt=0, le=720)
    """Age in hours of the oldest scan without a reply at which the station warns."""
    scanner_prefix: str = ""
    """Prefix that the scanner puts before each barcode."""
    scanner_suffix: str = ""
    """Suffix that the scanner puts after each barcode; Enter and white space are always removed."""
    scanner_aim_prefix: bool = False
    """Remove the symbology identifier (AIM) that the scanner puts before each barcode, for example `]C1`."""
    scanner_codabar_letters: bool = False
    """Remove the start and stop letters of Codabar, for example `A` and `B` in `A31000000000170B`."""
    scanner_code39_asterisks: bool = False
    """Remove the start and stop asterisks of Code 39."""
    check_digit: Literal["none", "mod10"] = "none"
    """Check of a barcode of 14 digits: `mod10` refuses one whose last digit is wrong, and sends nothing."""
    print_slip: bool = True
    """Print a slip for each scan."""
    patron_card_pattern: str | None = None
    """Regular expression of the patron cards' numbers; the station neither stores nor sends a line that fully matches."""
    require_signed_replies: bool = False
    """Ignore replies and slip notices that are not signed with this station's key; `bookdrop stations add` sets it."""
    reply_timeout_seconds: float = Field(default=15.0, gt=0, le=3600)
    """Time in seconds that a command waits for its replies."""
    retry_interval_seconds: float = Field(default=3.0, gt=0, le=30)
    """Time in seconds before an event without a reply is sent again for the first time; each further wait doubles."""

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
            raise ValueError(f"is not a regular expression: {error}") from None
        return pattern

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Read the settings, with the workers' broker URL as the fallback. Raises `ConfigurationError`."""
        settings = super().load(**overrides)
        common = os.environ.get("BOOKDROP_BROKER_URL")
        if common and "broker_url" not in settings.model_fields_set:
            return settings.model_copy(update={"broker_url": SecretStr(common)})
        return settings

    @property
    def scanner(self) -> ScannerFormat:
        """The format of a scanned line, from the settings whose names begin with `scanner_`."""
        return ScannerFormat(
            self.scanner_prefix,
            self.scanner_suffix,
            self.scanner_aim_prefix,
            self.scanner_codabar_letters,
            self.scanner_code39_asterisks,
        )

    @property
    def journal_limits(self) -> JournalLimits:
        """Limits of the journal's growth."""
        return JournalLimits(self.journal_max_unanswered, self.journal_min_free_mb * 1_000_000)

    @property
    def unanswered_warning_after(self) -> timedelta:
        """Age of the oldest unanswered scan at which the station warns."""
        return timedelta(hours=self.unanswered_warning_hours)

    @property
    def journal_file(self) -> Path:
        """Path of the journal."""
        if self.journal is not None:
            return self.journal.expanduser()
        state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        return state / "bookdrop" / f"{self.code}.journal"
