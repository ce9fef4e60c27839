# SPDX-License-Identifier: Apache-2.0
"""What every printer can be asked, and how it fails."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Protocol


class PrinterError(Exception):
    """The slip did not get through. The text says why, for staff."""


class PrinterUnavailableError(PrinterError):
    """No byte had left, or the printer refused the slip: nothing comes out of it, and it can be sent again."""


class PrinterInterruptedError(PrinterError):
    """A byte may have left: nobody knows what the printer has."""


class WrongPrinterUriError(PrinterError):
    """The printer's URI cannot be used."""


@dataclass(frozen=True)
class PrinterStatus:
    """How a printer says it is. Advisory: a printer that is ready may still fail, and the other way round."""

    ready: bool
    words: str
    """For staff, such as `no paper; paused`."""
    reasons: tuple[str, ...] = ()
    """What it lacks, in the keywords of IPP (RFC 8011, section 5.4.12), such as `media-empty`."""


@dataclass(frozen=True)
class Pending:
    """The printer has the slip and will print it."""


@dataclass(frozen=True)
class Waiting:
    """The printer has the slip, and somebody must come: there is no paper, a cover is open."""

    reasons: tuple[str, ...]
    """In the keywords of IPP, such as `media-empty`."""


@dataclass(frozen=True)
class Completed:
    """The printer says that it printed the slip."""


@dataclass(frozen=True)
class Lost:
    """The printer has given the slip up: whether something came out, a person must see."""

    why: str
    """For staff, such as `it was cancelled at the printer`."""


@dataclass(frozen=True)
class Forgotten(Lost):
    """The printer does not know the job, or no more: many forget one a minute after it was done, all when unplugged."""


JobFate = Pending | Waiting | Completed | Lost
"""What became of a slip that a printer accepted; `Forgotten` is a kind of `Lost`."""


class PrinterDriver(Protocol):
    """One printer, ready to be sent to; nothing is connected before it is asked something."""

    @property
    def language(self) -> Literal["pdf", "zpl"]:
        """What it takes."""

    @property
    def can_repeat(self) -> bool:
        """Sending the same slip again cannot make a second one."""

    @property
    def knows_its_jobs(self) -> bool:
        """It can be asked by `JobTrackingDriver`'s methods; else that it accepted a slip is all that will ever be known."""

    def send(self, document: bytes, *, job_name: str, on_first_byte: Callable[[], None]) -> str:
        """Send `document` as the job `job_name` and give what the printer calls it.

        Calls `on_first_byte` once, before anything leaves; what that raises comes out as it is. Raises
        `PrinterUnavailableError` while no byte had left and when the printer refused the slip,
        `PrinterInterruptedError` when a byte left and nobody knows.
        """

    def status(self) -> PrinterStatus:
        """Ask the printer how it is. Never raises: one that cannot be reached is not ready, in words."""


class JobTrackingDriver(PrinterDriver, Protocol):
    """A printer that knows its jobs."""

    def follow(self, spool_id: str, *, job_name: str | None = None) -> JobFate:
        """What became of the slip that `send` called `spool_id`.

        With `job_name` a job of that number but another name is none of ours: printers count from 1 after a reset.
        Raises `PrinterUnavailableError` when the printer cannot be asked now.
        """

    def find(self, job_name: str) -> str | None:
        """What the printer calls the newest job of that name; `None` when it has none and remembers none.

        Answers what became of a slip whose worker died while sending. Raises `PrinterUnavailableError` when the
        printer cannot be asked now.
        """


REASONS: Final = {
    "media-empty": "no paper",
    "media-needed": "no paper",
    "media-jam": "paper jam",
    "paused": "paused",
    "moving-to-paused": "paused",
    "cover-open": "a cover is open",
    "door-open": "a door is open",
    "interlock-open": "a cover is open",
    "marker-supply-empty": "no ink, toner or ribbon",
    "toner-empty": "no toner",
    "input-tray-missing": "the paper tray is missing",
    "output-area-full": "its output is full",
    "offline": "offline",
    "shutdown": "switched off",
    "connecting-to-device": "cannot be reached by its server",
    "timed-out": "does not answer its server",
    "spool-area-full": "its memory is full",
    "stopped-partly": "partly stopped",
    "job-hold-until-specified": "the job is held at the printer",
}
"""What must be seen to, in words."""


def in_words(reasons: tuple[str, ...]) -> str:
    """The reasons as staff read them, each once."""
    return "; ".join(dict.fromkeys(REASONS.get(reason, reason.replace("-", " ")) for reason in reasons))
