# SPDX-License-Identifier: Apache-2.0
"""Settings of the workers and of operations: one typed object, read when asked for."""

from datetime import timedelta
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from schemas.broker_url import Broker, read_broker_url
from schemas.configuration import PREFIX, SideSettings


class WorkerSettings(SideSettings):
    """What workers and the `bookdrop` command need to know. Environment prefix `BOOKDROP_`, table `[workers]`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX)
    table: ClassVar[str] = "workers"

    broker_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    """`redis://`, `rediss://`, `redis+socket://`, `sentinel://`, `amqp://` or `amqps://`; chosen by this alone."""
    database_url: str = "sqlite:///bookdrop.db"
    """`sqlite:///FILE` or `postgresql://USER@HOST/NAME`."""
    role: Literal["all", "returns", "printing", "housekeeping", "flower"] = "all"
    """Whose tasks a worker started by Celery's own command registers; `bookdrop worker ROLE` sets it. `flower`: this is
    Flower, and keeps its hands off what workers have taken."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """`debug`, `info`, `warning` or `error`: what is less is not logged."""
    log_format: Literal["auto", "json", "console"] = "auto"
    """`auto`: console on a terminal, JSON elsewhere."""
    heartbeat_file: Path | None = None
    """A worker touches it every few seconds: health without a broker. `None`: in the temporary folder."""
    concurrency: int = Field(default=2, ge=1, le=256)
    """Processes of a returns worker."""
    batching: bool = True
    """Whether a returns worker whose processes are all busy lets scans gather, and does up to fifty in one transaction."""
    redis_visibility_timeout_seconds: int = Field(default=120, ge=30, le=3600)
    """Redis: after how long a message that a dead worker held is delivered again, in seconds."""
    redis_transport: Literal["atomic", "kombu"] = "atomic"
    """Redis: how a worker receives. `atomic`: nothing is lost if it dies meanwhile, and it lives with rubbish. `kombu`: as Celery alone."""
    undo_window_minutes: int = Field(default=10, ge=0, le=1440)
    """How long a Return can be taken back in full, in minutes; 0 turns undo off and keeps nothing aside."""
    patron_card_pattern: str | None = None
    """Regular expression of our patron cards' numbers; a scan that matches is refused and looked up nowhere."""
    slip_expiry_hours: float = Field(default=24.0, ge=0.1, le=720)
    """How long a slip may wait for its printer; after that it expires and must be reprinted, for its book may be gone."""
    quarantine_retention_days: int = Field(default=30, ge=1, le=365)
    """How long what a quarantined message says is kept while nobody decides about it, in days; it may name a reader."""
    sweep_interval_seconds: float = Field(default=5.0, ge=0.5, le=60)
    """How often housekeeping sweeps the outbox and the print jobs, in seconds."""

    flower_user_header: str | None = None
    """Header in which a proxy that does the login names the person, such as `X-Forwarded-User`; needs the next one."""
    flower_proxy_secret: SecretStr | None = None
    """What that proxy sends in the header `X-Bookdrop-Proxy`, so that nobody else can name a person."""
    flower_operators: str = ""
    """Users who may act in `bookdrop flower`, separated by commas; empty: every identified user."""

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
            raise ValueError("is no database URL; write sqlite:///FILE or postgresql://USER@HOST/NAME") from None
        if backend not in {"sqlite", "postgresql", "postgres"}:
            raise ValueError(f"bookdrop stores in SQLite or PostgreSQL, not in {backend}")
        return url

    @property
    def broker(self) -> Broker:
        """The broker, taken apart."""
        return read_broker_url(self.broker_url.get_secret_value())

    @property
    def undo_window(self) -> timedelta:
        """How long a Return can be taken back in full."""
        return timedelta(minutes=self.undo_window_minutes)
