# SPDX-License-Identifier: Apache-2.0
"""The reference page of reason codes, generated from their enumerations. `python -m docs.generate.reason_codes` writes it."""

from pathlib import Path
from typing import Final

from schemas.reasons import DeadLetterReason, RejectionReason, ReplyReason

PAGE: Final = Path("docs/reference/reason-codes.md")

_HEAD: Final = """# Reason codes

Each reply has an outcome and a reason code. The outcome decides what staff see first; the reason code states the cause,
for programs. Codes are part of the contract: within `v1` new codes are added, and no code changes its meaning. Treat an
unknown code like its outcome. This page is generated from `schemas/reasons.py` (`make docs`).
"""

_REPLIES: Final = """
## Replies

| code | meaning |
| --- | --- |"""

_REJECTIONS: Final = """
## Rejected messages

The reply has the outcome `refused`. It is not final: the message is in [quarantine](../how-to/handle-quarantined-messages.md),
and another reply may follow when an operator retries it.

| code | meaning |
| --- | --- |"""

_DEAD_LETTERS: Final = """
## Dead letters

Nothing is replied; the reason is in the quarantine list.

| code | meaning |
| --- | --- |"""


def page() -> str:
    """The page, as Markdown."""
    sections = ((_REPLIES, ReplyReason), (_REJECTIONS, RejectionReason), (_DEAD_LETTERS, DeadLetterReason))
    lines = [_HEAD.rstrip()]
    for head, reasons in sections:
        lines.append(head)
        lines += [f"| `{reason}` | {reason.meaning} |" for reason in reasons]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
