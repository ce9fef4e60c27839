# SPDX-License-Identifier: Apache-2.0
"""The users of the deployment's broker: an ACL file without passwords, which `deploy/make-secrets` completes."""

from pathlib import Path
from typing import Final

from workers.access_control import redis

PAGE: Final = Path("deploy/redis/users.acl.template")

_HEAD: Final = """# Users of the broker for deploy/make-secrets, which writes each password's hash and each station's code into a line. Made from
# the code by `make docs`; `bookdrop acl redis` prints the same users.
"""


def page() -> str:
    """The file: `@HASH@` stands for the SHA-256 of the user's password, `@CODE@` for a station's code."""
    lines = [redis.DEFAULT_OFF, *(user.line("@HASH@") for user in redis.users(["@CODE@"], 0))]
    return _HEAD + "\n".join(lines) + "\n"
