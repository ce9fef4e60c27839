# SPDX-License-Identifier: Apache-2.0
"""Printers for the tests: a real one that speaks IPP, a port that swallows labels, and a bad line before either."""

import os
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.request import urlopen

from tests.conftest import missing

PDF = b"%PDF-1.4\n" + b"% a slip\n" * 20
PAPER_OUT, PAPER_IN = (
    f"size1=na_letter_8.5x11in&type1=stationery&level1={main}"
    f"&size3=na_number-10_4.125x9.5in&type3=envelope&level3={by_pass}"
    for main, by_pass in ((0, 0), (250, 25))
)


def program(name: str) -> str | None:
    """Where a program is, also one of the system's that users seldom have on their PATH."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until(true, what):
    """Wait for a condition, at most half a minute."""
    for _ in range(600):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError(f"not after half a minute: {what}")


class IppPrinterProcess:
    """`ippeveprinter`, the printer of the Printer Working Group's own tests, as a process of ours."""

    def __init__(self, folder: Path, *, takes: str = "application/pdf", command: str = "/bin/true") -> None:
        self.folder = folder
        self.port = free_port()
        self.uri = f"ipp://localhost:{self.port}/ipp/print"
        self._options = ["-f", takes, "-c", command]
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        """Switch it on; it knows nothing of the jobs of before."""
        self.folder.mkdir(parents=True, exist_ok=True)
        log = (self.folder / "printer.log").open("ab")
        where = ["-n", "localhost", "-p", str(self.port), "-d", str(self.folder), "-K", str(self.folder), "-k"]
        with log:
            self._process = subprocess.Popen(
                [program("ippeveprinter") or "", *where, *self._options, f"Slips {self.port}"], stdout=log, stderr=log
            )
        for _ in range(200):
            if self._process.poll() is not None:
                break
            with suppress(OSError), socket.create_connection(("localhost", self.port), 1):
                return
            time.sleep(0.05)
        self.stop()
        missing(f"a system bus and avahi for ippeveprinter: {(self.folder / 'printer.log').read_text()}")

    def stop(self) -> None:
        """Pull the plug: whatever it was doing ends at once."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(10)

    def paper_out(self) -> None:
        """Take its paper away, as on its own web page."""
        self._set_paper(PAPER_OUT)

    def refill(self) -> None:
        """Give it paper."""
        self._set_paper(PAPER_IN)

    def documents(self) -> list[bytes]:
        """What it has taken, in order; each whole."""
        found = [path for path in self.folder.iterdir() if path.suffix == ".pdf"]
        return [path.read_bytes() for path in sorted(found, key=lambda path: int(path.name.split("-")[0]))]

    def _set_paper(self, state: str) -> None:
        with urlopen(f"http://localhost:{self.port}/media?{state}", timeout=10) as page:
            page.read()


@contextmanager
def ipp_printer(folder: Path, **options: str) -> Iterator[IppPrinterProcess]:
    """A printer that speaks IPP, switched on; what it takes is kept in `folder`."""
    if program("ippeveprinter") is None:
        missing("ippeveprinter")
    printer = IppPrinterProcess(folder, **options)
    try:
        printer.start()
        yield printer
    finally:
        printer.stop()


class Listener(ABC):
    """A port with a thread for each connection."""

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
        """Hang up on everybody."""
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
    """A label printer on a port: keeps what it is sent; answers `~HS` with `reply`, if it has one."""

    def __init__(self, reply: bytes = b"", port: int = 0) -> None:
        self.reply = reply
        self._taken: list[bytes] = []
        super().__init__(port)

    @property
    def uri(self) -> str:
        """Its URI."""
        return f"socket://127.0.0.1:{self.port}"

    def documents(self) -> list[bytes]:
        """What it has taken, in order; each whole."""
        return list(self._taken)

    def serve(self, client: socket.socket) -> None:
        """Read until the end."""
        said = b""
        while part := client.recv(4096):
            said += part
            if said.strip() == b"~HS" and self.reply:
                client.sendall(self.reply)
        if said.strip() not in {b"", b"~HS"}:
            self._taken.append(said)


class BadLine(Listener):
    """Before a printer, with a fault.

    `hangs` reads nothing; `breaks` resets the connection mid-job, `breaks later` a moment after; `too large` refuses
    with HTTP 413 after the first bytes and hangs up; `slow` reads a little at a time; `loses the answer` hands all on
    and resets the connection when the printer has answered.
    """

    def __init__(self, fault: str, to_port: int) -> None:
        self._fault, self._to_port = fault, to_port
        super().__init__()

    def serve(self, client: socket.socket) -> None:
        """Do what this line does."""
        match self._fault:
            case "hangs":
                self._ended.wait()
            case "breaks":
                client.recv(1000)
                reset(client)
            case "breaks later":
                client.recv(1000)
                self._ended.wait(0.3)
                reset(client)
            case "too large":
                client.recv(1000)
                client.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
                self._ended.wait(0.1)
                reset(client)
            case "slow" | "loses the answer":
                with socket.create_connection(("localhost", self._to_port)) as printer:
                    self._start(self._back, printer, client)
                    while part := client.recv(2048):
                        printer.sendall(part)
                        time.sleep(0.002 if self._fault == "slow" else 0)
                    printer.shutdown(socket.SHUT_WR)
                    self._ended.wait(0.2)

    def _back(self, printer: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while part := printer.recv(4096):
                if self._fault == "loses the answer":
                    reset(client)
                    return
                client.sendall(part)
            client.shutdown(socket.SHUT_WR)


def reset(connection: socket.socket) -> None:
    """Close as a printer does that is switched off: the other side gets an error."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
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
    """A CUPS server of our own, with the queue `slips` before a printer."""

    def __init__(self, root: Path, device: str) -> None:
        self.root = root
        self.socket = root / "cups.sock"
        self.uri = "lp://slips"
        self._device = device
        self._process: subprocess.Popen | None = None

    def start(self, *, paused: bool = False, accepting: bool = True) -> None:
        """Switch it on, with its queue in a state."""
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
        for _ in range(200):
            if self._process.poll() is not None:
                break
            with suppress(OSError), socket.socket(socket.AF_UNIX) as client:
                client.connect(str(self.socket))
                return
            time.sleep(0.05)
        self.stop()
        missing(f"a CUPS server that starts: {(self.root / 'cupsd.log').read_text()}")

    def stop(self) -> None:
        """Switch it off."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(10)


@contextmanager
def cups_server(root: Path, device: str) -> Iterator[CupsServer]:
    """A CUPS server, not started yet, whose queue prints on `device`; `root` is a short path."""
    if program("cupsd") is None:
        missing("cupsd")
    server = CupsServer(root, device)
    try:
        yield server
    finally:
        server.stop()
