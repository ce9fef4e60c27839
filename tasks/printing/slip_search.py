# SPDX-License-Identifier: Apache-2.0
"""Find slips by what staff have at hand: a slip's code, a barcode, a request, an ISBN, a partner, words of a title."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, select

from schemas.models import PrintJob
from schemas.slip_codes import parse_typed
from tasks.printing.slip_lookup import find_slips
from tasks.requests.search import external_ids, find_requests

FEWEST_SEARCHED: Final = 8
"""Digits or letters that the end of a slip's code must have, as the pages show it."""


@dataclass(frozen=True)
class FoundSlips:
    """The slips themselves, or the requests whose slips match; the other field is `None`."""

    slips: Sequence[UUID] | None = None
    requests: Sequence[int] | None = None


def find(connection: Connection, text: str) -> FoundSlips:
    """The slips that `text` names by their code or id; else the slips of the requests that it finds."""
    slips = slips_by_code(connection, text)
    return FoundSlips(slips=slips) if slips else FoundSlips(requests=find_requests(connection, text))


def find_external_ids(connection: Connection, text: str, limit: int) -> dict[int, str]:
    """The requests that `text` finds, by their own data or by their slips, newest first: internal id to external one."""
    slips = slips_by_code(connection, text)
    if slips:
        of_slips = select(PrintJob.request_id).where(PrintJob.id.in_(slips))
        return external_ids(connection, list(connection.scalars(of_slips.limit(limit))))
    return external_ids(connection, find_requests(connection, text)[:limit])


def slips_by_code(connection: Connection, text: str) -> Sequence[UUID]:
    """The ids of the slips whose code or id is `text`, or ends with it; empty for any other text.

    A text of fewer than eight digits is a barcode or a request here, and not the end of a code.
    """
    meanings = [digits for digits in parse_typed(text.strip().lstrip("…")) if len(digits) >= FEWEST_SEARCHED]
    return [slip.job_id for slip in find_slips(connection, meanings)]
