# SPDX-License-Identifier: Apache-2.0
"""The URL of an endpoint: validation, its parts, and the form that is shown. Pure."""

import ipaddress
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

MAX_LENGTH: Final = 500
_PORTS: Final = {"https": 443, "http": 80}


class RefusedUrlError(ValueError):
    """The URL cannot be an endpoint. The text contains the cause, and no part of the URL that may be a secret."""


@dataclass(frozen=True)
class EndpointUrl:
    """A validated URL."""

    scheme: str
    host: str
    port: int
    target: str
    """Path and query, as the request line has them."""
    authority: str
    """Host and port, as the header `Host` has them."""

    @property
    def is_encrypted(self) -> bool:
        """True for `https`."""
        return self.scheme == "https"

    @property
    def shown(self) -> str:
        """The URL for lists and errors, without its query: that may contain a token."""
        path, _, query = self.target.partition("?")
        return f"{self.scheme}://{self.authority}{path}{'?...' if query else ''}"


def read_url(url: str, *, plain_http: bool) -> EndpointUrl:
    """Validate `url`. `plain_http` permits `http`. Raises `RefusedUrlError`."""
    if len(url) > MAX_LENGTH:
        raise RefusedUrlError(f"The URL has more than {MAX_LENGTH} characters.")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise RefusedUrlError(
            "The URL has characters that a URL may not contain; write them as %XX, a host as Punycode."
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise RefusedUrlError("The URL has no valid host and port.") from None
    _verify(parts, plain_http=plain_http)
    host = parts.hostname or ""
    name = f"[{host}]" if ":" in host else host
    return EndpointUrl(
        parts.scheme,
        host,
        port or _PORTS[parts.scheme],
        (parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
        name if port is None else f"{name}:{port}",
    )


def _verify(parts: SplitResult, *, plain_http: bool) -> None:
    if parts.scheme not in _PORTS:
        raise RefusedUrlError("The URL must begin with https://.")
    if parts.scheme == "http" and not plain_http:
        raise RefusedUrlError(
            "The URL begins with http://, which does not encrypt. Use https://; --allow-http permits it for an address of"
            " this machine or of a private network."
        )
    if parts.username is not None or parts.password is not None:
        raise RefusedUrlError("The URL contains a user or a password. The signature identifies bookdrop: remove them.")
    if parts.fragment:
        raise RefusedUrlError("The URL has a fragment (#...), which is never sent. Remove it.")
    if not parts.hostname or parts.port == 0:
        raise RefusedUrlError("The URL has no valid host and port.")


def permits_address(address: str, *, is_encrypted: bool) -> bool:
    """True if a message may be sent to the IP address that the host resolved to.

    Never permitted are addresses of the link, such as the metadata services of clouds, and of groups. Without
    encryption the address must be of this machine or of a private network.
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    if found.is_link_local or found.is_multicast or found.is_unspecified:
        return False
    return is_encrypted or found.is_loopback or found.is_private
