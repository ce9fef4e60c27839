# SPDX-License-Identifier: Apache-2.0
"""`ipp://` and `ipps://`: printers that accept PDF, track their jobs and report their problems (RFC 8011).

The client uses the standard library only. Four operations over HTTP need less code than a synchronous wrapper of an
asynchronous client (pyipp depends on aiohttp and its event loop). Only a client at this level can also report when the
first byte of a slip leaves.
"""

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import Final
from urllib.parse import urlsplit

from tasks.network_exchange import Deadline, Encryption, Exchange, connect, encrypt
from tasks.printing.printers.driver import (
    REASONS,
    Completed,
    JobFate,
    Lost,
    Pending,
    PrinterInterruptedError,
    PrinterStatus,
    PrinterUnavailableError,
    UnknownJob,
    Waiting,
    describe_reasons,
)
from tasks.printing.printers.ipp_codec import (
    MAX_RESPONSE_SIZE,
    Attributes,
    Group,
    InvalidResponseError,
    Operation,
    Response,
    Value,
    decode,
    encode,
)
from tasks.printing.printers.timeouts import PrinterTimeouts, describe_error

PORT: Final = 631
USER: Final = "bookdrop"
"""Owner of the jobs. Servers like CUPS show the name of a job to its owner only."""

_NO_SCALING: Final = {"print-scaling": "none"}
"""After scaling to the paper, bars would not start at whole dots (`print-scaling`, PWG 5100.13)."""


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
_MAY_PRINT: Final = frozenset({0x0500, 0x0508})
"""Errors after which the slip may still print: internal error, and cancelled while it was sent."""

_REFUSALS: Final[Mapping[int, str]] = {
    0x0401: "does not allow it",
    0x0402: "requires a user and a password",
    0x0403: "does not allow us to print",
    0x0406: "has no such queue",
    0x0408: "does not accept a document of this size",
    0x040A: "does not accept PDF",
    0x040B: "does not accept slips as they are sent",
    0x0501: "does not support the operation",
    0x0502: "is out of service",
    0x0504: "has a fault",
    0x0506: "accepts no jobs",
    0x0507: "is busy with another job",
    0x050A: "is switched off for jobs",
    0x050B: "has too many jobs already",
}
_HTTP_REFUSALS: Final[Mapping[int, str]] = {
    HTTPStatus.UNAUTHORIZED: "requires a user and a password",
    HTTPStatus.FORBIDDEN: "does not allow us to print",
    HTTPStatus.NOT_FOUND: "has nothing at this path",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "does not accept a document of this size",
    HTTPStatus.UPGRADE_REQUIRED: "requires encrypted connections: write ipps://",
    HTTPStatus.SERVICE_UNAVAILABLE: "is busy",
}


class _HttpRefusalError(Exception):
    """The printer's HTTP server refused the request."""

    def __init__(self, status: int) -> None:
        super().__init__(_HTTP_REFUSALS.get(status, f"responds with HTTP {status}"))
        self.is_certain = status < HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.SERVICE_UNAVAILABLE


_FAILURES: Final = (OSError, HTTPException, InvalidResponseError, _HttpRefusalError)


def _describe(error: Exception) -> str:
    return str(error) if isinstance(error, _HttpRefusalError) else describe_error(error)


@dataclass(frozen=True)
class IppAddress:
    """The address of a printer."""

    uri: str
    """The `printer-uri` of its requests: `ipp://host/ipp/print`."""
    path: str
    connect: Callable[[Deadline, timedelta], socket.socket]
    """Connects within the deadline of the exchange and a shorter time for connecting. Raises `OSError`."""


def network_address(host: str, port: int | None, path: str, encryption: Encryption | None) -> IppAddress:
    """The address of a printer on the network; encrypted when `encryption` is given."""
    path = path if path not in {"", "/"} else "/ipp/print"
    name = f"[{host}]" if ":" in host else host
    port = port or PORT

    def open_connection(deadline: Deadline, at_most: timedelta) -> socket.socket:
        connection = connect(host, port, deadline, at_most)
        return connection if encryption is None else encrypt(connection, encryption, host, deadline)

    scheme = "ipp" if encryption is None else "ipps"
    return IppAddress(f"{scheme}://{name}:{port}{path}", path, open_connection)


class IppPrinter:
    """A printer, or a queue of a print server, that supports IPP."""

    can_repeat: Final = False
    writes_files: Final = False
    tracks_jobs: Final = True
    language: Final = "pdf"

    def __init__(self, address: IppAddress, timeouts: PrinterTimeouts | None = None) -> None:
        self._address = address
        self._timeouts = timeouts or PrinterTimeouts()

    def send(self, document: bytes, *, job_name: str, on_first_byte: Callable[[], None]) -> str:
        """Print-Job: the request contains the slip, so that no job exists without its document."""
        attributes = {"job-name": job_name, "document-format": "application/pdf"}
        request = self._request(Operation.PRINT_JOB, attributes, _NO_SCALING)
        with self._connected(self._timeouts.exchange) as exchange:
            on_first_byte()
            try:
                response = self._exchange(exchange, request + document)
            except _HttpRefusalError as error:
                kind = PrinterUnavailableError if error.is_certain else PrinterInterruptedError
                raise kind(self._message(str(error))) from error
            except _FAILURES as error:
                raise PrinterInterruptedError(self._message(f"{_describe(error)} while it was sent a slip")) from error
        if response.status in _MAY_PRINT:
            raise PrinterInterruptedError(self._message(self._refusal(response)))
        if not response.succeeded:
            raise PrinterUnavailableError(self._message(self._refusal(response)))
        for job in response.jobs:
            match job.get("job-id"):
                case (int(number), *_) if number > 0:
                    return str(number)
        raise PrinterInterruptedError(self._message("accepted a slip and did not return a job number"))

    def status(self) -> PrinterStatus:
        """Get-Printer-Attributes."""
        try:
            printer = self._query_printer()
        except PrinterUnavailableError as error:
            return PrinterStatus(ready=False, description=str(error))
        reasons = _reasons(printer)
        accepts = bool(printer.get("printer-is-accepting-jobs", (True,))[0])
        stopped = printer.get("printer-state", (0,))[0] == _PRINTER_STOPPED
        problems = describe_reasons(tuple(reason for reason in reasons if reason in REASONS))
        parts = [problems, "" if accepts else "accepts no jobs", "stopped" if stopped and not problems else ""]
        description = "; ".join(part for part in parts if part) or describe_reasons(reasons) or "ready"
        ready = accepts and not stopped and not any(reason in REASONS for reason in _reasons(printer, mild=False))
        return PrinterStatus(ready, description, reasons)

    def job_fate(self, spool_id: str, *, job_name: str | None = None) -> JobFate:
        """Get-Job-Attributes; for an unfinished job also the printer's problems."""
        if not spool_id.isdecimal():
            return UnknownJob(f"{spool_id} is not a printer's job number")
        requested = ("job-state", "job-state-reasons", "job-name")
        attributes: dict[str, Value | tuple[Value, ...]] = {"job-id": int(spool_id), "requested-attributes": requested}
        response = self._query(Operation.GET_JOB_ATTRIBUTES, attributes)
        if response.status in _NOT_FOUND:
            return UnknownJob("the printer no longer knows the job")
        if not response.succeeded:
            raise PrinterUnavailableError(self._message(self._refusal(response)))
        job = response.jobs[0] if response.jobs else {}
        if job_name is not None and job.get("job-name", (job_name,))[0] != job_name:
            return UnknownJob("the printer no longer knows the job: another job has its number now")
        return self._fate(job)

    def find_job(self, job_name: str) -> str | None:
        """Get-Jobs of all users, not completed and completed."""
        job_ids: list[int] = []
        for which in ("not-completed", "completed"):
            response = self._query(
                Operation.GET_JOBS, {"requested-attributes": ("job-id", "job-name"), "which-jobs": which}
            )
            if not response.succeeded:
                raise PrinterUnavailableError(self._message(self._refusal(response)))
            ours = (job for job in response.jobs if job.get("job-name") == (job_name,))
            job_ids += [number for job in ours for number in job.get("job-id", ()) if isinstance(number, int)]
        return str(max(job_ids)) if job_ids else None

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
                problems = tuple(reason for reason in _reasons(self._query_printer()) if reason in REASONS)
                if problems:
                    return Waiting(problems)
                return Waiting(reasons) if state in {_JobState.HELD, _JobState.STOPPED} else Pending()
            case _:
                return Pending()

    def _query_printer(self) -> Group:
        requested = ("printer-state", "printer-state-reasons", "printer-is-accepting-jobs")
        response = self._query(Operation.GET_PRINTER_ATTRIBUTES, {"requested-attributes": requested})
        if not response.succeeded:
            raise PrinterUnavailableError(self._message(self._refusal(response)))
        return response.printer

    def _query(self, operation: Operation, attributes: Attributes) -> Response:
        """Run an operation that changes nothing. Raises `PrinterUnavailableError`."""
        with self._connected(self._timeouts.query) as exchange:
            try:
                return self._exchange(exchange, self._request(operation, attributes))
            except _FAILURES as error:
                raise PrinterUnavailableError(self._message(_describe(error))) from error

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
    def _connected(self, duration: timedelta) -> Iterator[Exchange]:
        deadline = Deadline(duration)
        try:
            connection = self._address.connect(deadline, self._timeouts.connect)
        except OSError as error:
            raise PrinterUnavailableError(self._message(describe_error(error))) from error
        with closing(connection):
            yield Exchange(connection, deadline, MAX_RESPONSE_SIZE)

    def _exchange(self, exchange: Exchange, body: bytes) -> Response:
        http = HTTPConnection(urlsplit(self._address.uri).netloc)
        http.sock = exchange  # connected already; it ends every operation at the deadline
        # A printer that refuses a slip may close before it has read all of it. Its response can still be read.
        with suppress(BrokenPipeError, ConnectionResetError):
            http.request("POST", self._address.path, body, {"Content-Type": "application/ipp"})
        response = http.getresponse()
        if response.status != HTTPStatus.OK:
            raise _HttpRefusalError(response.status)
        return decode(response.read(MAX_RESPONSE_SIZE))

    def _message(self, description: str) -> str:
        return f"the printer {description} ({self._address.uri})"

    @staticmethod
    def _refusal(response: Response) -> str:
        description = _REFUSALS.get(response.status, f"refuses it, IPP status 0x{response.status:04x}")
        return f"{description}: {response.message}" if response.message else description


def _reasons(printer: Group, *, mild: bool = True) -> tuple[str, ...]:
    """The printer's problems, without severity.

    Without `mild`, reports and warnings are left out (RFC 8011, section 5.4.12): a printer with one empty tray of two
    still prints.
    """
    reported = [str(reason) for reason in printer.get("printer-state-reasons", ())]
    kept = [reason for reason in reported if mild or not reason.endswith(("-report", "-warning"))]
    bare = (reason.removesuffix("-error").removesuffix("-warning").removesuffix("-report") for reason in kept)
    return tuple(reason for reason in bare if reason != "none")
