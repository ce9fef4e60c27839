# SPDX-License-Identifier: Apache-2.0
"""Retention of content that may name a patron: the kinds, and how long each is kept. Pure."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


class ContentKind(StrEnum):
    """A kind of content that housekeeping erases; the row stays. Each has a row in the table `retention`."""

    UNKNOWN_BARCODES = "unknown_barcodes"
    """Scanned or typed texts of replies in `inbox` that matched nothing."""
    REPLIES = "replies"
    """All further content of replies in `inbox`."""
    HISTORY_NOTES = "history_notes"
    """Typed texts of the history, `request_events`."""
    SLIP_NOTES = "slip_notes"
    """Damage note of a slip, and reason and operator of a reprint, in `print_jobs`."""
    DAMAGE_NOTES = "damage_notes"
    """Damage notes of closed requests."""
    QUARANTINE = "quarantine"
    """Bodies of quarantined messages."""


@dataclass(frozen=True)
class RetentionPolicy:
    """Retention of each kind of content, and the secret for hashes of unknown barcodes."""

    unknown_barcodes: timedelta = timedelta(hours=24)
    replies: timedelta = timedelta(days=365)
    notes: timedelta = timedelta(days=365)
    """Of history, slips and requests."""
    quarantine: timedelta = timedelta(days=30)
    key: str | None = None
    """Secret for the keyed hash of an unknown barcode; `None`: no hash is stored."""
