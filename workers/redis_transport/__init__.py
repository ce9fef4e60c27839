# SPDX-License-Identifier: Apache-2.0
"""A Redis transport for kombu with atomic receive: a crash before the acknowledgement loses no message.

Import `Connection` from here; all else is internal. README.md of this folder has guarantees, keys, and limits.
"""

from workers.redis_transport.transport import Connection

__all__ = ["Connection"]
