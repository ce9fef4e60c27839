# SPDX-License-Identifier: Apache-2.0
"""Settings of the workers and of operations: one typed object, read at first use."""

from datetime import timedelta
from pathlib import Path
from typing import ClassVar, Final, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from schemas.broker_url import Broker, read_broker_url
from schemas.configuration import PREFIX, ProgramSettings

MIN_KEY_CHARACTERS: Final = 32


class WorkerSettings(ProgramSettings):
    """Settings of the workers and the `bookdrop` command. Environment prefix `BOOKDROP_`, table `[workers]`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX)
    table: ClassVar[str] = "workers"

    broker_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    """The broker: `redis://`, `rediss://`, `redis+socket://`, `sentinel://`, `amqp://` or `amqps://`."""
    database_url: str = "sqlite:///bookdrop.db"
    """The database: `sqlite:///FILE` or `postgresql://USER@HOST/NAME`."""
    role: Literal["all", "returns", "printing", "housekeeping", "flower"] = "all"
    """The role of a worker that Celery's own command starts, which determines its tasks; `bookdrop worker ROLE` sets it.
    `flower`: runs as Flower; never restores unacknowledged messages."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Minimum log level: `debug`, `info`, `warning` or `error`."""
    log_format: Literal["auto", "json", "console"] = "auto"
    """`auto`: console on a terminal, JSON elsewhere."""
    heartbeat_file: Path | None = None
    """File that a worker touches every few seconds, for health checks without a broker. `None`: in `bookdrop-UID` in
    the temporary folder, a folder of this user alone."""
    concurrency: int = Field(default=2, ge=1, le=256)
    """Processes of a returns worker."""
    batching: bool = True
    """Process up to fifty scans in one transaction while all processes of a returns worker are busy."""
    redis_visibility_timeout_seconds: int = Field(default=120, ge=30, le=3600)
    """Redis: time after which a message of a dead worker is redelivered, in seconds."""
    redis_transport: Literal["atomic", "kombu"] = "atomic"
    """Redis: how a worker receives. `atomic`: a crash loses no message, and malformed messages do not stop the worker.
    `kombu`: kombu's transport."""
    undo_window_minutes: int = Field(default=10, ge=0, le=1440)
    """How long a Return can be undone in full, in minutes; 0 turns undo off, and no patron link is kept for it."""
    patron_card_pattern: str | None = None
    """Regular expression of the library's patron card numbers; a scan that matches is refused and not looked up."""
    undo_and_override_own_branch_only: bool = False
    """Permit an undo only at stations of the branch where the Return took place, and a supervisor's override only at
    stations of the branch that owns the request. `false`: at every station."""
    slip_expiry_hours: float = Field(default=24.0, ge=0.1, le=720)
    """How long a slip may wait for its printer, in hours; then it expires and must be reprinted, because its book may be gone."""
    quarantine_retention_days: int = Field(default=30, ge=1, le=365)
    """How long the content of a quarantined message is kept without a decision, in days; it may name a patron."""
    unknown_barcode_retention_hours: int = Field(default=24, ge=1, le=720)
    """How long a scanned or typed text that matched nothing is kept in the stored reply, in hours; it may be a patron's
    number."""
    reply_retention_days: int = Field(default=365, ge=30, le=3650)
    """How long the content of a stored reply is kept, in days; then outcome and reason remain."""
    note_retention_days: int = Field(default=365, ge=30, le=3650)
    """How long typed texts of a request's history and of its slips are kept, in days: notes, reasons, names of supervisors
    and operators."""
    privacy_key: SecretStr | None = None
    """Secret of this installation, at least 32 characters, for the keyed hash that replaces an unknown barcode. `None`:
    the barcode is erased without a hash."""
    quarantine_max_messages: int = Field(default=10_000, ge=100, le=1_000_000)
    """Largest number of quarantined messages whose content is kept; beyond it, the oldest content is erased first."""
    quarantine_max_mebibytes: int = Field(default=256, ge=1, le=65_536)
    """Largest size of the content of all quarantined messages together, in MiB; beyond it, the oldest is erased first."""
    sweep_interval_seconds: float = Field(default=5.0, ge=0.5, le=60)
    """Interval at which housekeeping sweeps the outbox and the print jobs, and queues webhooks, in seconds."""
    webhook_timeout_seconds: float = Field(default=15.0, ge=1, le=30)
    """Time for one attempt to deliver a webhook: connecting, sending and the response together, in seconds."""
    webhook_give_up_days: float = Field(default=7.0, ge=0.01, le=90)
    """Time after which a webhook that still fails is not sent again automatically, in days."""
    webhook_retention_days: float = Field(default=30.0, ge=1, le=365)
    """How long delivered and failed webhooks are kept, in days. They contain no patron."""

    flower_port: int = Field(default=5555, ge=0, le=65535)
    """Port on which `bookdrop up` starts Flower, on the loopback address; 0: any free port. If another program has the
    port, `up` selects a free one and reports it."""
    flower_user_header: str | None = None
    """Header in which a proxy that handles the login names the user, for example `X-Forwarded-User`; requires the next one."""
    flower_proxy_secret: SecretStr | None = None
    """Secret that this proxy sends in the header `X-Bookdrop-Proxy`, so that no other client can name a user."""
    flower_operators: str = ""
    """Users who may act in `bookdrop flower`, separated by commas; empty: every identified user."""

    flower_metrics_token: SecretStr | None = None
    """Bearer token with which a monitoring system reads Flower's `/metrics`. Without it `/metrics` requires the login of the
    pages."""

    @field_validator("broker_url")
    @classmethod
    def _known_broker(cls, url: SecretStr) -> SecretStr:
        read_broker_url(url.get_secret_value())
        return url

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, url: str) -> str:
        try:
            backend = make_url(url).get_backend_name()
        except ArgumentError:
            raise ValueError("is not a database URL; write sqlite:///FILE or postgresql://USER@HOST/NAME") from None
        if backend not in {"sqlite", "postgresql", "postgres"}:
            raise ValueError(f"bookdrop stores in SQLite or PostgreSQL, not in {backend}")
        return url

    @field_validator("privacy_key")
    @classmethod
    def _long_enough(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and len(key.get_secret_value()) < MIN_KEY_CHARACTERS:
            raise ValueError(
                f"has fewer than {MIN_KEY_CHARACTERS} characters; generate one with 'openssl rand -hex 32'"
            )
        return key

    @property
    def broker(self) -> Broker:
        """The broker, parsed from its URL."""
        return read_broker_url(self.broker_url.get_secret_value())

    @property
    def undo_window(self) -> timedelta:
        """How long a Return can be undone in full."""
        return timedelta(minutes=self.undo_window_minutes)
