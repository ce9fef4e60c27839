# SPDX-License-Identifier: Apache-2.0
"""`ipp://` and `ipps://`: printers that take PDF, know their jobs and say what they lack (RFC 8011).

A client of our own on the standard library: four operations over HTTP are less code than making an asynchronous
client wait (pyipp brings aiohttp and its loop), and only so can it be said when the first byte of a slip leaves.
"""

import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import IntEnum
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Final

from tasks.printing.printers.driver import (
    REASONS,
    Completed,
    Forgotten,
    JobFate,
    Lost,
    Pending,
    PrinterInterruptedError,
    PrinterStatus,
    PrinterUnavailableError,
    Waiting,
    in_words,
)
from tasks.printing.printers.ipp_codec import (
    LARGEST_REPLY,
    Attributes,
    Group,
    NoIppError,
    Operation,
    Reply,
    Value,
    decode,
    encode,
)
from tasks.printing.printers.timeouts import PrinterTimeouts, why

PORT: Final = 631
USER: Final = "bookdrop"
"""Whose jobs they are; servers such as CUPS show a job's name to the same user only."""

_AS_IT_IS: Final = {"print-scaling": "none"}
"""Stretched to the paper, bars would no longer fall on dots (`print-scaling`, PWG 5100.13)."""


class _JobState(IntEnum):
    """RFC 8011, section 5.3.7."""

    PENDING = 3
    HELD = 4
    PROCESSING = 5
    STOPPED = 6
    CANCELED = 7
    ABORTED = 8
    COMPLETED = 9


_PRINTER_STOPPED: Final = 5
_NOT_FOUND: Final = frozenset({0x0406, 0x0407})
_PERHAPS_TAKEN: Final = frozenset({0x0500, 0x0508})
"""Refusals after which something may come out all the same: internal error, and cancelled while it was sent."""

_REFUSALS: Final[Mapping[int, str]] = {
    0x0401: "does not allow it",
    0x0402: "wants a user and a password",
    0x0403: "does not allow us to print",
    0x0406: "knows no such queue",
    0x0408: "takes no document of this size",
    0x040A: "does not take PDF",
    0x040B: "does not take slips as they are sent",
    0x0501: "cannot do it",
    0x0502: "is out of service",
    0x0504: "has a fault",
    0x0506: "accepts no jobs",
    0x0507: "is busy with another job",
    0x050A: "is switched off for jobs",
    0x050B: "has too many jobs already",
}
_HTTP_REFUSALS: Final[Mapping[int, str]] = {
    HTTPStatus.UNAUTHORIZED: "wants a user and a password",
    HTTPStatus.FORBIDDEN: "does not allow us to print",
    HTTPStatus.NOT_FOUND: "has nothing at this path",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "takes no document of this size",
    HTTPStatus.UPGRADE_REQUIRED: "wants its connections encrypted: write ipps://",
    HTTPStatus.SERVICE_UNAVAILABLE: "is busy",
}


class _HttpRefusalError(Exception):
    """The printer's HTTP server did not let the request through."""

    def __init__(self, status: int) -> None:
        super().__init__(_HTTP_REFUSALS.get(status, f"answers HTTP {status}"))
        self.is_sure = status < HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.SERVICE_UNAVAILABLE


_FAILURES: Final = (OSError, HTTPException, NoIppError, _HttpRefusalError)


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, _HttpRefusalError) else why(error)


@dataclass(frozen=True)
class IppAddress:
    """Where a printer is."""

    uri: str
    """What it calls itself: `ipp://host/ipp/print`."""
    path: str
    connection: Callable[[float], HTTPConnection]
    """Makes one, not connected yet, that waits so many seconds."""


def network_address(host: str, port: int | None, path: str, certificates: ssl.SSLContext | None) -> IppAddress:
    """The address of a printer on the network; encrypted when `certificates` tell whom to trust."""
    path = path if path not in {"", "/"} else "/ipp/print"
    name = f"[{host}]" if ":" in host else host
    where = port or PORT

    def connection(seconds: float) -> HTTPConnection:
        if certificates is None:
            return HTTPConnection(host, where, timeout=seconds)
        return HTTPSConnection(host, where, timeout=seconds, context=certificates)

    scheme = "ipp" if certificates is None else "ipps"
    return IppAddress(f"{scheme}://{name}:{where}{path}", path, connection)


class IppPrinter:
    """A printer, or a queue of a print server, that speaks IPP."""

    can_repeat: Final = False
    knows_its_jobs: Final = True
    language: Final = "pdf"

    def __init__(self, address: IppAddress, patience: PrinterTimeouts | None = None) -> None:
        self._address = address
        self._patience = patience or PrinterTimeouts()

    def send(self, document: bytes, *, job_name: str, on_first_byte: Callable[[], None]) -> str:
        """Print-Job: the slip goes along with the request, so that there is no job without its document."""
        wanted = {"job-name": job_name, "document-format": "application/pdf"}
        head = self._request(Operation.PRINT_JOB, wanted, _AS_IT_IS)
        with self._connected(self._patience.transfer.total_seconds()) as connection:
            on_first_byte()
            try:
                reply = self._exchange(connection, head + document)
            except _HttpRefusalError as error:
                kind = PrinterUnavailableError if error.is_sure else PrinterInterruptedError
                raise kind(self._said(str(error))) from error
            except _FAILURES as error:
                raise PrinterInterruptedError(self._said(f"{_words(error)} while it was sent a slip")) from error
        if reply.status in _PERHAPS_TAKEN:
            raise PrinterInterruptedError(self._said(self._refusal(reply)))
        if not reply.succeeded:
            raise PrinterUnavailableError(self._said(self._refusal(reply)))
        for job in reply.jobs:
            if "job-id" in job:
                return str(job["job-id"][0])
        raise PrinterInterruptedError(self._said("took a slip and did not say as which job"))

    def status(self) -> PrinterStatus:
        """Get-Printer-Attributes."""
        try:
            printer = self._ask_printer()
        except PrinterUnavailableError as error:
            return PrinterStatus(ready=False, words=str(error))
        reasons = _reasons(printer)
        accepts = bool(printer.get("printer-is-accepting-jobs", (True,))[0])
        stopped = printer.get("printer-state", (0,))[0] == _PRINTER_STOPPED
        words = in_words(tuple(reason for reason in reasons if reason in REASONS))
        said = [words, "" if accepts else "accepts no jobs", "stopped" if stopped and not words else ""]
        ready = accepts and not stopped and not any(reason in REASONS for reason in _reasons(printer, mild=False))
        return PrinterStatus(ready, "; ".join(word for word in said if word) or in_words(reasons) or "ready", reasons)

    def follow(self, spool_id: str, *, job_name: str | None = None) -> JobFate:
        """Get-Job-Attributes; while it is not done, also what its printer lacks."""
        if not spool_id.isdecimal():
            return Forgotten(f"{spool_id} is no job number of a printer")
        attributes = ("job-state", "job-state-reasons", "job-name")
        asked: dict[str, Value | tuple[Value, ...]] = {"job-id": int(spool_id), "requested-attributes": attributes}
        reply = self._ask(Operation.GET_JOB_ATTRIBUTES, asked)
        if reply.status in _NOT_FOUND:
            return Forgotten("the printer no longer knows the job")
        if not reply.succeeded:
            raise PrinterUnavailableError(self._said(self._refusal(reply)))
        job = reply.jobs[0] if reply.jobs else {}
        if job_name is not None and job.get("job-name", (job_name,))[0] != job_name:
            return Forgotten("the printer no longer knows the job: its number is another one's now")
        return self._fate(job)

    def find(self, job_name: str) -> str | None:
        """Get-Jobs, those to do and those done, of everybody."""
        found = []
        for which in ("not-completed", "completed"):
            reply = self._ask(Operation.GET_JOBS, {"requested-attributes": ("job-id", "job-name"), "which-jobs": which})
            if not reply.succeeded:
                raise PrinterUnavailableError(self._said(self._refusal(reply)))
            ours = (job for job in reply.jobs if job.get("job-name") == (job_name,))
            found += [number for job in ours for number in job.get("job-id", ()) if isinstance(number, int)]
        return str(max(found)) if found else None

    def _fate(self, job: Group) -> JobFate:
        reasons = tuple(str(reason) for reason in job.get("job-state-reasons", ()) if reason != "none")
        match job.get("job-state", (0,))[0]:
            case _JobState.COMPLETED:
                return Completed()
            case _JobState.CANCELED:
                return Lost("it was cancelled at the printer")
            case _JobState.ABORTED:
                return Lost("the printer gave it up")
            case _JobState.PENDING | _JobState.HELD | _JobState.PROCESSING | _JobState.STOPPED as state:
                lacking = tuple(reason for reason in _reasons(self._ask_printer()) if reason in REASONS)
                if lacking:
                    return Waiting(lacking)
                return Waiting(reasons) if state in {_JobState.HELD, _JobState.STOPPED} else Pending()
            case _:
                return Pending()

    def _ask_printer(self) -> Group:
        wanted = ("printer-state", "printer-state-reasons", "printer-is-accepting-jobs")
        reply = self._ask(Operation.GET_PRINTER_ATTRIBUTES, {"requested-attributes": wanted})
        if not reply.succeeded:
            raise PrinterUnavailableError(self._said(self._refusal(reply)))
        return reply.printer

    def _ask(self, operation: Operation, attributes: Attributes) -> Reply:
        """Ask something that changes nothing. Raises `PrinterUnavailableError`."""
        with self._connected(self._patience.connect.total_seconds()) as connection:
            try:
                return self._exchange(connection, self._request(operation, attributes))
            except _FAILURES as error:
                raise PrinterUnavailableError(self._said(_words(error))) from error

    def _request(self, operation: Operation, attributes: Attributes, job: Attributes | None = None) -> bytes:
        target: dict[str, Value | tuple[Value, ...]] = {
            "attributes-charset": "utf-8",
            "attributes-natural-language": "en",
            "printer-uri": self._address.uri,
        }
        if "job-id" in attributes:
            target["job-id"] = attributes["job-id"]
        return encode(operation, 1, {**target, "requesting-user-name": USER, **attributes}, job)

    @contextmanager
    def _connected(self, then_wait: float) -> Iterator[HTTPConnection]:
        connection = self._address.connection(self._patience.connect.total_seconds())
        try:
            try:
                connection.connect()
            except OSError as error:
                raise PrinterUnavailableError(self._said(why(error))) from error
            connection.sock.settimeout(then_wait)
            yield connection
        finally:
            connection.close()

    def _exchange(self, connection: HTTPConnection, body: bytes) -> Reply:
        # Who refuses a slip may close before all of it was read: what it says is there to be read all the same.
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.request("POST", self._address.path, body, {"Content-Type": "application/ipp"})
        response = connection.getresponse()
        if response.status != HTTPStatus.OK:
            raise _HttpRefusalError(response.status)
        return decode(response.read(LARGEST_REPLY))

    def _said(self, words: str) -> str:
        return f"the printer {words} ({self._address.uri})"

    @staticmethod
    def _refusal(reply: Reply) -> str:
        words = _REFUSALS.get(reply.status, f"refuses it, IPP status 0x{reply.status:04x}")
        return f"{words}: {reply.message}" if reply.message else words


def _reasons(printer: Group, *, mild: bool = True) -> tuple[str, ...]:
    """What the printer lacks.

    Without the `mild` ones only what it does not mark as a report or a warning (RFC 8011, 5.4.12): one of two trays
    may be empty and the printer prints all the same.
    """
    found = [str(reason) for reason in printer.get("printer-state-reasons", ())]
    kept = [reason for reason in found if mild or not reason.endswith(("-report", "-warning"))]
    bare = (reason.removesuffix("-error").removesuffix("-warning").removesuffix("-report") for reason in kept)
    return tuple(reason for reason in bare if reason != "none")
