# SPDX-License-Identifier: Apache-2.0
"""How long a printer on the network is waited for, and what its failures are called."""

import errno
import os
import socket
import ssl
from dataclasses import dataclass
from datetime import timedelta
from http.client import HTTPException


@dataclass(frozen=True)
class PrinterTimeouts:
    """How long is waited; a print worker's lease must be longer than all of it together."""

    connect: timedelta = timedelta(seconds=5)
    transfer: timedelta = timedelta(seconds=30)
    """For the printer to take a slip, and again for it to answer. Small printers read as slowly as they print."""
    status: timedelta = timedelta(seconds=2)
    """For what is only asked to be told: many label printers never answer."""


_WORDS = {
    errno.ECONNREFUSED: "refuses connections: is it on, and is this its port?",
    errno.EHOSTUNREACH: "cannot be reached on the network",
    errno.ENETUNREACH: "cannot be reached on the network",
    errno.ECONNRESET: "closed the connection",
    errno.EPIPE: "closed the connection",
    errno.ENOTCONN: "closed the connection",
    errno.ENOENT: "is not there",
    errno.EACCES: "may not be talked to",
}


def why(error: Exception) -> str:
    """What went wrong with a connection, to be read after the name of the printer."""
    match error:
        case TimeoutError():
            words = "did not answer in time"
        case socket.gaierror():
            words = "has a name that nobody on the network knows"
        case ssl.SSLCertVerificationError():
            words = f"has a certificate that is not trusted ({error.verify_message})"
        case ssl.SSLError():
            words = "cannot agree with us on how to encrypt"
        case OSError(errno=int(number)):
            words = _WORDS.get(number, os.strerror(number))
        case OSError():
            words = "closed the connection"
        case HTTPException():
            words = "answers, but not as a printer does"
        case _:
            words = f"answers, but not as a printer does ({error})"
    return words
