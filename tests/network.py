# SPDX-License-Identifier: Apache-2.0
"""Free ports, and a TLS endpoint in front of a server that has none."""

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.requirements import skip_or_fail


def free_port() -> int:
    """A port of the loopback interface without a listener at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def issue_certificate(
    folder: Path, host: str = "localhost", issuer: tuple[Path, Path] | None = None
) -> tuple[Path, Path]:
    """A key and a certificate for `host` in `folder`, signed by `issuer` (its key and certificate) or by itself."""
    if shutil.which("openssl") is None:
        skip_or_fail("openssl, to create a certificate")
    folder.mkdir(parents=True, exist_ok=True)
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    names = f"subjectAltName=DNS:{host}" + (",IP:127.0.0.1" if host == "localhost" else "")
    signed_by: list[str | Path] = [] if issuer is None else ["-CAkey", issuer[0], "-CA", issuer[1]]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", f"/CN={host}",
         "-addext", names, *signed_by, "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    return key, certificate


@contextmanager
def tls_proxy(
    upstream: int | Path, folder: Path, issued: tuple[Path, Path] | None = None
) -> Iterator[tuple[int, Path]]:
    """A TLS port that forwards to `upstream`, a port or the path of a socket; gives it and its own certificate.

    `issued`: its key and certificate; without them it creates its own for localhost.
    """
    key, certificate = issued or issue_certificate(folder)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    listener = socket.create_server(("127.0.0.1", 0))

    def forward(accepted: socket.socket) -> None:
        is_port = isinstance(upstream, int)
        with (
            suppress(OSError),
            context.wrap_socket(accepted, server_side=True) as near,
            socket.socket(socket.AF_INET if is_port else socket.AF_UNIX) as far,
        ):
            far.connect(("127.0.0.1", upstream) if is_port else str(upstream))
            near.settimeout(0.02)
            far.settimeout(0.02)
            while True:
                for source, target in ((near, far), (far, near)):
                    with suppress(TimeoutError):
                        if not (data := source.recv(65536)):
                            return
                        target.sendall(data)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=forward, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1], certificate
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
