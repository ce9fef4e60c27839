# SPDX-License-Identifier: Apache-2.0
"""Printers for tests: an IPP printer, a label printer on a port, a CUPS server, and a faulty connection to either."""

import os
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.request import urlopen

from tests.network import free_port
from tests.polling import wait_until
from tests.requirements import skip_or_fail

PDF = b"%PDF-1.4\n" + b"% a slip\n" * 20
PAPER_OUT, PAPER_IN = (
    f"size1=na_letter_8.5x11in&type1=stationery&level1={main}"
    f"&size3=na_number-10_4.125x9.5in&type3=envelope&level3={by_pass}"
    for main, by_pass in ((0, 0), (250, 25))
)


def program(name: str) -> str | None:
    """The path of a program, also of a system program outside the user's PATH."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


class IppPrinterProcess:
    """`ippeveprinter`, the test printer of the Printer Working Group, as a process."""

    def __init__(self, folder: Path, *, document_format: str = "application/pdf", command: str = "/bin/true") -> None:
        self.folder = folder
        self.port = free_port()
        self.uri = f"ipp://localhost:{self.port}/ipp/print"
        self._options = ["-f", document_format, "-c", command]
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        """Switch the printer on. It has no record of earlier jobs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        log = (self.folder / "printer.log").open("ab")
        location = ["-n", "localhost", "-p", str(self.port), "-d", str(self.folder), "-K", str(self.folder), "-k"]
        with log:
            self._process = subprocess.Popen(
                [program("ippeveprinter") or "", *location, *self._options, f"Slips {self.port}"],
                stdout=log,
                stderr=log,
            )
        if not _is_up(self._process, self._accepts_connections):
            self.stop()
            skip_or_fail(f"a system bus and avahi for ippeveprinter: {(self.folder / 'printer.log').read_text()}")

    def stop(self) -> None:
        """Switch the printer off at once, as by its plug."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(10)

    def paper_out(self) -> None:
        """Remove the paper, as on the printer's web page."""
        self._set_paper(PAPER_OUT)

    def refill(self) -> None:
        """Add paper."""
        self._set_paper(PAPER_IN)

    def documents(self) -> list[bytes]:
        """The documents it received, in order."""
        found = [path for path in self.folder.iterdir() if path.suffix == ".pdf"]
        return [path.read_bytes() for path in sorted(found, key=lambda path: int(path.name.split("-")[0]))]

    def _accepts_connections(self) -> bool:
        with suppress(OSError), socket.create_connection(("localhost", self.port), 1):
            return True
        return False

    def _set_paper(self, state: str) -> None:
        with urlopen(f"http://localhost:{self.port}/media?{state}", timeout=300) as page:
            page.read()


@contextmanager
def ipp_printer(folder: Path, **options: str) -> Iterator[IppPrinterProcess]:
    """An IPP printer that is switched on. It stores the documents it receives in `folder`."""
    if program("ippeveprinter") is None:
        skip_or_fail("ippeveprinter")
    printer = IppPrinterProcess(folder, **options)
    try:
        printer.start()
        yield printer
    finally:
        printer.stop()


class Listener(ABC):
    """A listening port with a thread for each connection."""

    def __init__(self, port: int = 0) -> None:
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._listener.bind(("127.0.0.1", port))
        self._listener.listen()
        self.port = self._listener.getsockname()[1]
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    @abstractmethod
    def serve(self, client: socket.socket) -> None:
        """Serve one connection."""

    def close(self) -> None:
        """Close the port and wait for its threads."""
        self._ended.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            self.serve(client)

    def _start(self, target, *args) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()


class LabelPrinter(Listener):
    """A label printer on a port. It stores what it receives, and responds to `~HS` with `status`, if that is given."""

    def __init__(self, status: bytes = b"", port: int = 0) -> None:
        self.status = status
        self._received: list[bytes] = []
        super().__init__(port)

    @property
    def uri(self) -> str:
        """Its URI."""
        return f"socket://127.0.0.1:{self.port}"

    def documents(self) -> list[bytes]:
        """The documents it received, in order."""
        return list(self._received)

    def serve(self, client: socket.socket) -> None:
        """Read until the connection closes."""
        data = b""
        while part := client.recv(4096):
            data += part
            if data.strip() == b"~HS" and self.status:
                client.sendall(self.status)
        if data.strip() not in {b"", b"~HS"}:
            self._received.append(data)


class ScriptedIppPrinter(Listener):
    """A printer that returns given bytes, which no test printer sends: `respond` makes the response to an operation."""

    def __init__(self, respond: Callable[[int], bytes]) -> None:
        self._respond = respond
        super().__init__()

    @property
    def uri(self) -> str:
        """Its URI."""
        return f"ipp://127.0.0.1:{self.port}/ipp/print"

    def serve(self, client: socket.socket) -> None:
        """Read one request, send the response, close."""
        with client.makefile("rb") as request:
            head = list(iter(request.readline, b"\r\n"))
            length = next(int(line.split(b":")[1]) for line in head if line.lower().startswith(b"content-length"))
            body = request.read(length)
            response = self._respond(int.from_bytes(body[2:4], "big"))
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(response) + response)


def ipp_response(status: int, *groups: tuple[int, dict[str, tuple[int, bytes]]]) -> bytes:
    """An IPP response: its status, and groups of attributes, each attribute with its tag and its bytes."""
    body = struct.pack(">BBHI", 1, 1, status, 1)
    for kind, attributes in groups:
        body += bytes([kind])
        for name, (tag, value) in attributes.items():
            body += struct.pack(">BH", tag, len(name)) + name.encode() + struct.pack(">H", len(value)) + value
    return body + b"\x03"


HTTP_OK = b"HTTP/1.1 200 OK\r\n"
DRIPS = {
    "status line": (b"HTTP/1.1 200 ", b"O"),
    "header": (HTTP_OK + b"X-Header: ", b"x"),
    "body": (HTTP_OK + b"Content-Length: 100000\r\n\r\n", b"x"),
    "continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "handshake": (b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc", b"x"),
    "label status": (b"\x02", b"0"),
}
"""The first bytes of a response, and the bytes that follow again and again."""


class DrippingPrinter(Listener):
    """A printer that never ends an exchange, and is never silent for longer than 20 ms.

    `read`: it reads a byte at a time. `status line`, `header`, `body`: it sends that part of a response a byte at a time.
    `continue`: it sends HTTP 100 again and again. `flood`: it sends a body without an end, as fast as it is read.
    `handshake`: it sends a TLS record. `label status`: it sends a status of a label printer.
    """

    def __init__(self, part: str) -> None:
        self._part = part
        self._connections = 0
        self.most_connections = 0
        """The largest number of connections that were open at the same time."""
        super().__init__()

    def serve(self, client: socket.socket) -> None:
        """Drip until the other side closes the connection."""
        self._connections += 1
        self.most_connections = max(self.most_connections, self._connections)
        try:
            self._drip(client)
        finally:
            self._connections -= 1

    def _drip(self, client: socket.socket) -> None:
        match self._part:
            case "read":
                while not self._ended.wait(0.02) and client.recv(1):
                    pass
            case "flood":
                client.sendall(HTTP_OK + b"\r\n")
                while not self._ended.is_set():
                    client.sendall(b"x" * 65536)
            case part:
                self._send_slowly(client, *DRIPS[part])

    def _send_slowly(self, client: socket.socket, first: bytes, rest: bytes) -> None:
        client.sendall(first)
        while not self._ended.wait(0.02):
            client.sendall(rest)


class FaultyConnection(Listener):
    """A port in front of a printer, with a fault.

    `hang` reads nothing. `reset` resets the connection mid-job, `late reset` 0.3 s later. `too large` responds with HTTP
    413 after the first bytes and closes. `slow` reads 2 kB at a time. `lose response` forwards everything, and resets
    the connection when the printer has responded.
    """

    def __init__(self, fault: str, to_port: int) -> None:
        self._fault, self._to_port = fault, to_port
        super().__init__()

    def serve(self, client: socket.socket) -> None:
        """Apply the fault."""
        match self._fault:
            case "hang":
                self._ended.wait()
            case "reset":
                client.recv(1000)
                reset(client)
            case "late reset":
                client.recv(1000)
                self._ended.wait(0.3)
                reset(client)
            case "too large":
                client.recv(1000)
                client.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
                self._ended.wait(0.1)
                reset(client)
            case "slow" | "lose response":
                with socket.create_connection(("localhost", self._to_port)) as printer:
                    self._start(self._return, printer, client)
                    while part := client.recv(2048):
                        printer.sendall(part)
                        time.sleep(0.002 if self._fault == "slow" else 0)
                    printer.shutdown(socket.SHUT_WR)
                    self._ended.wait(0.2)

    def _return(self, printer: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while part := printer.recv(4096):
                if self._fault == "lose response":
                    reset(client)
                    return
                client.sendall(part)
            client.shutdown(socket.SHUT_WR)


def _is_up(process: subprocess.Popen, accepts_connections: Callable[[], bool]) -> bool:
    """Wait until a server accepts connections, or has ended because it cannot run here."""
    return wait_until(lambda: accepts_connections() or process.poll() is not None) and process.poll() is None


def reset(connection: socket.socket) -> None:
    """Close with a reset, as a printer that is switched off: the other side gets an error."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # A thread that waits in recv() would keep the connection open.
    connection.shutdown(socket.SHUT_RD)
    connection.close()


CUPS_FILES = """\
ServerRoot {root}
RequestRoot {root}/spool
CacheDir {root}/cache
StateDir {root}/state
TempDir {root}/tmp
AccessLog {root}/access.log
ErrorLog {root}/error.log
PageLog {root}/page.log
"""
CUPSD = """\
Listen {root}/cups.sock
WebInterface No
Browsing Off
BrowseLocalProtocols none
<Policy default>
JobPrivateAccess default
JobPrivateValues default
<Limit All>
Order deny,allow
</Limit>
</Policy>
"""
QUEUE = """\
<Printer slips>
DeviceURI {device}
State {state}
Reason {reason}
Accepting {accepting}
JobSheets none none
ErrorPolicy retry-job
</Printer>
"""


class CupsServer:
    """A CUPS server with the queue `slips` in front of a printer."""

    def __init__(self, root: Path, device: str) -> None:
        self.root = root
        self.socket = root / "cups.sock"
        self.uri = "lp://slips"
        self._device = device
        self._process: subprocess.Popen | None = None

    def start(self, *, paused: bool = False, accepting: bool = True) -> None:
        """Start the server, with its queue paused or rejecting jobs if so requested."""
        for folder in ("spool", "spool/tmp", "cache", "state", "tmp"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o755)
        (self.root / "cups-files.conf").write_text(CUPS_FILES.format(root=self.root))
        (self.root / "cupsd.conf").write_text(CUPSD.format(root=self.root))
        queue = QUEUE.format(
            device=self._device,
            state="Stopped" if paused else "Idle",
            reason="paused" if paused else "none",
            accepting="Yes" if accepting else "No",
        )
        (self.root / "printers.conf").write_text(queue)
        with (self.root / "cupsd.log").open("ab") as log:
            options = ["-f", "-c", str(self.root / "cupsd.conf"), "-s", str(self.root / "cups-files.conf")]
            self._process = subprocess.Popen([program("cupsd") or "", *options], stdout=log, stderr=log)
        if not _is_up(self._process, self._accepts_connections):
            self.stop()
            skip_or_fail(f"a CUPS server that starts: {(self.root / 'cupsd.log').read_text()}")

    def stop(self) -> None:
        """End the server."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(60)

    def _accepts_connections(self) -> bool:
        with suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.socket))
            return True
        return False


@contextmanager
def cups_server(root: Path, device: str) -> Iterator[CupsServer]:
    """A CUPS server, not started yet, whose queue prints on `device`. `root` is a short path."""
    if program("cupsd") is None:
        skip_or_fail("cupsd")
    server = CupsServer(root, device)
    try:
        yield server
    finally:
        server.stop()
