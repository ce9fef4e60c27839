# SPDX-License-Identifier: Apache-2.0
"""What monitoring keeps: the workers' counts and durations added up, and when each desk was last heard of."""

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from schemas.models.columns import BigId, Code, Model


class MetricCell(Model):
    """One bucket of a histogram, or one counter, over all workers since the tables were made."""

    __tablename__ = "tallies"

    metric: Mapped[str] = mapped_column(String(80), primary_key=True)
    label: Mapped[Code] = mapped_column(primary_key=True)
    """Value of the metric's label; empty when it has none."""
    bucket: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """Index of the bucket's upper bound, the last one being infinity; 0 for a counter."""
    number: Mapped[int] = mapped_column(BigId)
    """How many."""
    microseconds: Mapped[int] = mapped_column(BigId)
    """The sum of their durations; 0 for a counter."""


class StationHeartbeat(Model):
    """The last that was heard of a desk."""

    __tablename__ = "sightings"

    station: Mapped[Code] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    """When a worker heard it, by the worker's clock."""
    held: Mapped[int]
    """How many events it had taken and could not send."""
    held_since: Mapped[datetime | None]
    """When the oldest of them was taken, by the station's clock."""
    said_at: Mapped[datetime | None]
    """When the desk said so, by the station's clock. `None`: written by a version before 0006."""
