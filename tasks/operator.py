# SPDX-License-Identifier: Apache-2.0
"""The person who acts on a print job or a quarantined message, and their reason."""

from dataclasses import dataclass

LONGEST_ACTOR = 100

LONGEST_REASON = 500


@dataclass(frozen=True)
class Operator:
    """Who decides, and why."""

    actor: str
    reason: str | None = None
