# SPDX-License-Identifier: Apache-2.0
"""The registry of event handlers: the handler of each task whose events a worker may process as one batch."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from schemas.topology import PROCESS_RETURN, PROCESS_SCAN
from tasks.events.handler import EventHandler
from tasks.returns.handler import RETURN_HANDLER

BATCH_HANDLERS: Final[Mapping[str, EventHandler[Any]]] = MappingProxyType(
    {PROCESS_SCAN: RETURN_HANDLER, PROCESS_RETURN: RETURN_HANDLER}
)
"""By task name. Events of other tasks are processed one by one."""
