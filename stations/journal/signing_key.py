# SPDX-License-Identifier: Apache-2.0
"""Sign the unanswered events again after the station's key was changed.

The event id and all other fields stay, so a worker that performed the event with the former signature returns the stored
reply. The journal stores a check value of the key, never the key.
"""

import hashlib
import hmac
import json
from typing import Final

from schemas import signing
from stations.journal.events import Journal

_CHECKED: Final = b"bookdrop: the key of a station's journal"


def adopt_key(journal: Journal, key: str) -> int:
    """Sign each unanswered event that has another signature; return their number. Raises `JournalError`.

    Nothing is read or written while the journal was used with the same key only.
    """
    journal.key_check = check_value(key)
    with journal.reading() as connection:
        if connection.execute("SELECT key_check FROM station").fetchone()[0] == journal.key_check:
            return 0
    with journal.writing("No event was signed again") as connection:
        rows = connection.execute("SELECT sequence, payload FROM events WHERE answered_at IS NULL").fetchall()
        changed = [
            (signed, sequence) for sequence, payload in rows if (signed := _signed_again(payload, key)) is not None
        ]
        connection.executemany("UPDATE events SET payload = ? WHERE sequence = ?", changed)
        connection.execute("UPDATE station SET key_check = ?", (journal.key_check,))
    return len(changed)


def check_value(key: str) -> str:
    """Text that is equal for equal keys, and from which the key cannot be computed."""
    return hmac.new(key.encode(), _CHECKED, hashlib.sha256).hexdigest()


def _signed_again(payload: str, key: str) -> str | None:
    """The event with the signature of `key`; `None` if it has it, or cannot be read."""
    try:
        event = json.loads(payload)
        if not isinstance(event, dict) or signing.verify(event, key.encode()):
            return None
        return json.dumps({**event, "signature": signing.sign(event, key.encode())}, ensure_ascii=False)
    except ValueError:
        return None
