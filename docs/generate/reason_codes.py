# SPDX-License-Identifier: Apache-2.0
"""The reference page of reason codes, generated from their enumerations."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from docs.generate.markdown import table
from schemas.reasons import DeadLetterReason, RejectionReason, ReplyReason

PAGE: Final = Path("docs/reference/reason-codes.md")

_HEAD: Final = """# Reason codes

Each reply has an outcome and a reason code. The outcome decides what staff see first; the reason code states the cause,
for programs. Codes are part of the contract: within `v1` new codes are added, and no code changes its meaning. Treat an
unknown code like its outcome. This page is generated from `schemas/reasons.py` (`make docs`).
"""

_REPLIES: Final = """## Replies
"""

_REJECTIONS: Final = """## Rejected messages

The reply has the outcome `refused`. It is not final: the message is in [quarantine](../how-to/handle-quarantined-messages.md),
and another reply may follow when an operator retries it.
"""

_DEAD_LETTERS: Final = """## Dead letters

Nothing is replied; the reason is in the quarantine list.
"""


def page() -> str:
    """The page, as Markdown."""
    return "\n".join(
        [
            _HEAD,
            *_section(_REPLIES, ReplyReason),
            *_section(_REJECTIONS, RejectionReason),
            *_section(_DEAD_LETTERS, DeadLetterReason),
        ]
    )


def _section(head: str, reasons: type[ReplyReason | RejectionReason | DeadLetterReason]) -> Iterator[str]:
    yield head
    yield from table(("code", "meaning"), ((f"`{reason}`", reason.meaning) for reason in reasons))
    yield ""
