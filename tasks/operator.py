# SPDX-License-Identifier: Apache-2.0
"""The operator: the person who acts on a print job or a quarantined message, how they were identified, and why."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from schemas.external_text import one_line

MAX_NAME_LENGTH: Final = 100
"""Characters of an operator's name that are stored; the rest is cut off."""

MAX_REASON_LENGTH: Final = 500
"""Characters of a reason that are stored; the rest is cut off."""


class Identification(StrEnum):
    """The means by which a person was identified. The history stores the value beside the name."""

    SIGNED_IN = "signed_in"
    """By Flower's own login."""
    PROXY = "proxy"
    """By the login of the proxy in front of Flower."""
    ACCOUNT = "account"
    """By the account of the operating system that runs the command."""
    TYPED = "typed"
    """By a name that someone typed: nothing verifies it."""
    STATION = "station"
    """By no name of a person: a station signed the event."""

    @property
    def label(self) -> str:
        """For the screen, after the name."""
        return _LABELS[self]


_LABELS: Final = {
    Identification.SIGNED_IN: "signed in",
    Identification.PROXY: "signed in at the proxy",
    Identification.ACCOUNT: "account of the computer",
    Identification.TYPED: "name typed",
    Identification.STATION: "signed by the station",
}


@dataclass(frozen=True)
class Operator:
    """A person who makes a decision, and why, each one printable line. A longer text is cut; an empty reason is `None`."""

    actor: str
    reason: str | None = None
    identified_by: Identification = Identification.TYPED
    account: str | None = None
    """Account of the operating system that ran the command, if the name was typed."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "actor", one_line(self.actor, MAX_NAME_LENGTH))
        object.__setattr__(self, "reason", one_line(self.reason or "", MAX_REASON_LENGTH) or None)
        object.__setattr__(self, "account", one_line(self.account or "", MAX_NAME_LENGTH) or None)

    @property
    def details(self) -> dict[str, str]:
        """The person as fields of a line of history."""
        identity = {"actor": self.actor, "identified_by": self.identified_by.value}
        return identity if self.account is None else {**identity, "account": self.account}


def named_person(name: str | None, identified_by: str | None, account: str | None = None) -> str:
    """A name with its identification for the screen: `ann (name typed, account root)`.

    `name` is `None` after its retention. `identified_by` is a stored value; it is `None` for a line that an earlier release
    wrote: then the name stands alone.
    """
    if name is None:
        return "a person whose name is no longer stored"
    if identified_by not in set(Identification):
        return name
    return f"{name} ({Identification(identified_by).label}{f', account {account}' if account else ''})"
