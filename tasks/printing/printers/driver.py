# SPDX-License-Identifier: Apache-2.0
"""The protocol of all printer drivers, and their errors."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeGuard

from schemas.external_text import one_line

MAX_DESCRIPTION_LENGTH: Final = 500
"""Characters of a description for staff; a longer one is cut."""


class PrinterError(Exception):
    """The slip was not sent completely. The text contains the cause, for staff: one printable line of bounded length.

    It may quote a printer, a name server or a certificate.
    """

    def __init__(self, description: str) -> None:
        super().__init__(one_line(description, MAX_DESCRIPTION_LENGTH))


class PrinterUnavailableError(PrinterError):
    """No byte had left, or the printer refused the slip: it will not print, and may be sent again."""


class PrinterInterruptedError(PrinterError):
    """A byte may have left: it is unknown what the printer has received."""


class WrongPrinterUriError(PrinterError):
    """The printer's URI is not valid."""


@dataclass(frozen=True)
class PrinterStatus:
    """The printer's own report. It is advisory: a ready printer may still fail, and the reverse."""

    ready: bool
    description: str
    """For staff: `no paper; paused` for example."""
    reasons: tuple[str, ...] = ()
    """The printer's problems as IPP keywords (RFC 8011, section 5.4.12): `media-empty` for example."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "description", one_line(self.description, MAX_DESCRIPTION_LENGTH))


@dataclass(frozen=True)
class Pending:
    """The printer has the slip and will print it."""


@dataclass(frozen=True)
class Waiting:
    """The printer has the slip and waits for staff: there is no paper, or a cover is open."""

    reasons: tuple[str, ...]
    """As IPP keywords: `media-empty` for example."""


@dataclass(frozen=True)
class Completed:
    """The printer reports that it printed the slip."""


@dataclass(frozen=True)
class Lost:
    """The printer has ended the job without success. Staff must look whether a slip came out."""

    reason: str
    """For staff: `it was cancelled at the printer` for example."""


@dataclass(frozen=True)
class UnknownJob(Lost):
    """The printer does not have the job, or no longer: many delete a job one minute after its end, all at power-off."""


JobFate = Pending | Waiting | Completed | Lost
"""The result of a job that a printer accepted; `UnknownJob` is a kind of `Lost`."""


class PrinterDriver(Protocol):
    """One printer. A driver connects only when a method is called."""

    @property
    def language(self) -> Literal["pdf", "zpl"]:
        """The document format that the printer accepts."""

    @property
    def can_repeat(self) -> bool:
        """True when sending the same slip again cannot print a second one."""

    @property
    def writes_files(self) -> bool:
        """True when the name of a job is the name of a file, which staff read."""

    @property
    def tracks_jobs(self) -> bool:
        """True when the driver is a `JobTrackingDriver`; else the acceptance of a slip is its only known result."""

    def send(self, document: bytes, *, job_name: str, on_first_byte: Callable[[], None]) -> str:
        """Send `document` as the job `job_name`, and return the printer's identifier of the job.

        Calls `on_first_byte` once, before the first byte leaves, and passes its exceptions on. Raises
        `PrinterUnavailableError` while no byte has left and when the printer refuses the slip,
        `PrinterInterruptedError` when a byte has left and the result is unknown.
        """

    def status(self) -> PrinterStatus:
        """Query the printer's state. Never raises: an unreachable printer is not ready, with a description."""


class JobTrackingDriver(PrinterDriver, Protocol):
    """A printer that can be queried for its jobs."""

    def job_fate(self, spool_id: str, *, job_name: str | None = None) -> JobFate:
        """The result of the job that `send` returned as `spool_id`.

        With `job_name`, a job of that number but another name counts as unknown: printers count from 1 after a reset.
        Raises `PrinterUnavailableError` when the printer cannot be queried now.
        """

    def find_job(self, job_name: str) -> str | None:
        """The identifier of the newest job of that name; `None` when the printer has none.

        Serves to reconcile a slip whose worker died while sending. Raises `PrinterUnavailableError` when the printer
        cannot be queried now.
        """


def is_job_tracking(driver: PrinterDriver) -> TypeGuard[JobTrackingDriver]:
    """True when the driver is a `JobTrackingDriver`."""
    return driver.tracks_jobs


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
    "timed-out": "does not respond to its server",
    "spool-area-full": "its memory is full",
    "stopped-partly": "partly stopped",
    "job-hold-until-specified": "the job is held at the printer",
}
"""Problems that staff must attend to: IPP keywords and their descriptions."""


def describe_reasons(reasons: tuple[str, ...]) -> str:
    """The reasons as text for staff, each once."""
    described = dict.fromkeys(REASONS.get(reason, reason.replace("-", " ")) for reason in reasons)
    return one_line("; ".join(described), MAX_DESCRIPTION_LENGTH)
