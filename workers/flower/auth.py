# SPDX-License-Identifier: Apache-2.0
"""Names of users from HTTP headers, and who may act. Pure: headers and settings in, a name out."""

import hmac
import unicodedata
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from schemas.configuration import ConfigurationError
from tasks.operator import MAX_NAME_LENGTH
from workers.settings import WorkerSettings

PROXY_HEADER: Final = "X-Bookdrop-Proxy"
"""Header with which a proxy that performs the login authenticates itself."""


@dataclass(frozen=True)
class Operators:
    """The proxy that identifies users where Flower has no login, and the users who may act."""

    user_header: str | None = None
    """Header in which the proxy sends the user's name; `None` without a proxy."""
    proxy_secret: str = field(default="", repr=False)
    names: frozenset[str] = frozenset()
    """Users who may act. Empty: every identified user."""

    @classmethod
    def from_settings(cls, settings: WorkerSettings) -> "Operators":
        """Read them from the settings. Raises `ConfigurationError`."""
        if (settings.flower_user_header is None) != (settings.flower_proxy_secret is None):
            raise ConfigurationError(
                "Set flower_user_header and flower_proxy_secret together: without the secret any client could send"
                " the header."
            )
        return cls(
            user_header=settings.flower_user_header,
            proxy_secret=settings.flower_proxy_secret.get_secret_value() if settings.flower_proxy_secret else "",
            names=frozenset(name.strip() for name in settings.flower_operators.split(",") if name.strip()),
        )

    def includes(self, name: str) -> bool:
        """Return whether the user `name` may act."""
        return not self.names or name in self.names

    def is_proxy(self, headers: Mapping[str, str]) -> bool:
        """Return whether the headers contain the proxy's secret."""
        secret = _header_text(headers.get(PROXY_HEADER, "")).encode()
        return bool(self.proxy_secret) and hmac.compare_digest(secret, self.proxy_secret.encode())

    def name_from_proxy(self, headers: Mapping[str, str]) -> str | None:
        """Return the user that the proxy names; `None` if the proxy's secret is missing or wrong."""
        if self.user_header is None or not self.is_proxy(headers):
            return None
        return _header_text(headers.get(self.user_header, "")).strip()[:MAX_NAME_LENGTH] or None


def basic_auth_name(authorization: str, permitted: Iterable[str]) -> str | None:
    """Return the name in an HTTP basic authentication header (RFC 7617); `None` unless `permitted` has its credentials.

    `permitted`: `NAME:PASSWORD` each. Clients encode other characters than ASCII in UTF-8 or in Latin-1, and compose
    accents or not; each form is accepted.
    """
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        given = b64decode(encoded.encode())
    except (Base64Error, UnicodeEncodeError):
        return None
    found = None
    for credentials in permitted:  # all of them, so that the time does not show which one it is
        wanted = _comparable(credentials)
        if any(hmac.compare_digest(_comparable(text), wanted) for text in _decodings(given)):
            found = credentials.partition(":")[0]
    return found or None


def _decodings(given: bytes) -> list[str]:
    """Return `given` as Latin-1, and as UTF-8 where it is valid."""
    try:
        return [given.decode("latin-1"), given.decode()]
    except UnicodeDecodeError:
        return [given.decode("latin-1")]


def _comparable(text: str) -> bytes:
    return unicodedata.normalize("NFC", text).encode("utf-8", "surrogateescape")


def _header_text(value: str) -> str:
    """Return a header's value, which tornado decodes as Latin-1, as UTF-8 where it is valid."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value


def has_bearer_token(headers: Mapping[str, str], token: str) -> bool:
    """Return whether the headers contain `token` as a bearer token (RFC 6750). An empty `token` is never contained."""
    scheme, _, given = _header_text(headers.get("Authorization", "")).partition(" ")
    return bool(token) and scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())
