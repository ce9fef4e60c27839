# SPDX-License-Identifier: Apache-2.0
"""Who is there, and who may act. Pure: headers and settings in, a name out."""

import hmac
from base64 import b64decode
from binascii import Error as NoBase64Error
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from schemas.configuration import ConfigurationError
from workers.settings import WorkerSettings

PROXY_HEADER: Final = "X-Bookdrop-Proxy"
"""Header by which a proxy that does the login proves that it is the proxy."""

LONGEST_NAME: Final = 100


@dataclass(frozen=True)
class People:
    """How a person is known where Flower itself asks for no login, and who may act."""

    passwords: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Of those who may sign in at our own page, by name."""
    user_header: str | None = None
    proxy_secret: str = field(default="", repr=False)
    actors: frozenset[str] = frozenset()
    """Empty: everybody who is known."""

    @classmethod
    def of(cls, settings: WorkerSettings) -> "People":
        """From the settings. Raises `ConfigurationError`."""
        if (settings.flower_user_header is None) != (settings.flower_proxy_secret is None):
            raise ConfigurationError(
                "flower_user_header and flower_proxy_secret go together: without the secret anybody could send the header."
            )
        return cls(
            passwords=_passwords(settings.flower_users.get_secret_value() if settings.flower_users else ""),
            user_header=settings.flower_user_header,
            proxy_secret=settings.flower_proxy_secret.get_secret_value() if settings.flower_proxy_secret else "",
            actors=frozenset(name.strip() for name in settings.flower_operators.split(",") if name.strip()),
        )

    def may_act(self, name: str) -> bool:
        """Tell whether the person of that name may decide."""
        return not self.actors or name in self.actors

    def is_theirs(self, name: str, password: str) -> bool:
        """Tell whether the password is that person's. Takes as long for a wrong name as for a wrong password."""
        right = self.passwords.get(name)
        return hmac.compare_digest((right or "").encode(), password.encode()) and bool(right)

    def named_by_proxy(self, headers: Mapping[str, str]) -> str | None:
        """The person whom the proxy names; nobody when it does not prove itself."""
        if self.user_header is None or not self.proxy_secret:
            return None
        if not hmac.compare_digest(headers.get(PROXY_HEADER, "").encode(), self.proxy_secret.encode()):
            return None
        return headers.get(self.user_header, "").strip()[:LONGEST_NAME] or None


def named_in(authorization: str) -> str | None:
    """The name in a header of HTTP basic authentication (RFC 7617) whose password somebody else has checked."""
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        return b64decode(credentials).decode().partition(":")[0] or None
    except (NoBase64Error, UnicodeDecodeError):
        return None


def _passwords(text: str) -> dict[str, str]:
    found = {}
    for line in text.splitlines():
        if not line.strip():
            continue
        name, colon, password = line.strip().partition(":")
        if not colon or not name.strip() or not password:
            raise ConfigurationError("flower_users has a line that is not name:password.")
        found[name.strip()[:LONGEST_NAME]] = password
    return found
