# SPDX-License-Identifier: Apache-2.0
"""Data of monitoring: the workers' summed counts and durations, and each station's last heartbeat."""

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from schemas.models.columns import BigId, Code, Model


class MetricCell(Model):
    """One bucket of a histogram, or one counter: the sum over all workers since the tables were created."""

    __tablename__ = "tallies"

    metric: Mapped[str] = mapped_column(String(80), primary_key=True)
    label: Mapped[Code] = mapped_column(primary_key=True)
    """Value of the metric's label; empty for a metric without one."""
    bucket: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """Index of the bucket's upper bound; the last bound is infinity. 0 for a counter."""
    number: Mapped[int] = mapped_column(BigId)
    """Count of observations or events."""
    microseconds: Mapped[int] = mapped_column(BigId)
    """Sum of the observed durations; 0 for a counter."""


class StationHeartbeat(Model):
    """The last status of a station that a worker received."""

    __tablename__ = "sightings"

    station: Mapped[Code] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    """Time at which a worker received it, by the worker's clock."""
    held: Mapped[int]
    """Events that the station had stored and could not send."""
    held_since: Mapped[datetime | None]
    """Time at which the oldest of them was stored, by the station's clock."""
    said_at: Mapped[datetime | None]
    """Time at which the station sent it, by the station's clock. `None`: written before revision 0006."""
