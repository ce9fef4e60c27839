# SPDX-License-Identifier: Apache-2.0
"""Progress of housekeeping through the content that is erased after its retention."""

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from schemas.models.columns import BigId, Code, Model


class RetentionProgress(Model):
    """The position of housekeeping in one kind of content. Content before it is erased, as far as it was to be."""

    __tablename__ = "retention"

    kind: Mapped[Code] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(BigId)
    """A time in microseconds since 1970, or an id: it depends on the kind."""
    complete_at: Mapped[datetime]
    """Last time at which nothing was left to erase."""
