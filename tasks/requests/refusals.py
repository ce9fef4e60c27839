# SPDX-License-Identifier: Apache-2.0
"""Refusals and next steps that several handlers share. Pure."""

from typing import Final

from schemas.barcodes import BarcodeRefusedError
from schemas.reasons import ReplyReason
from tasks.requests.model import Refused

REQUEST_IS_CLOSED: Final = "Put the item aside and hand it to interlibrary-loan staff: its request is closed."
REQUEST_IS_LOST: Final = "Ask a supervisor: Return from the request with an override and its reason."


def unknown_request(external_id: str | None, *, action: str | None = None) -> Refused:
    """The refusal of an event that names a request which does not exist.

    `action`: such as "Not returned", put before the message. `external_id`: `None` when it cannot be shown.
    """
    message = f"there is no request {external_id or ''}".rstrip()
    return Refused(
        ReplyReason.UNKNOWN_REQUEST,
        f"{action}: {message}" if action else message[0].upper() + message[1:],
        "Look the request up again and use its identifier.",
    )


def invalid_barcode(error: BarcodeRefusedError) -> Refused:
    """The refusal of a scanned line that is not a barcode."""
    message, _, next_step = str(error).partition(". ")
    return Refused(error.reason, message.removesuffix("."), next_step)
