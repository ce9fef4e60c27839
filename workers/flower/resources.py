# SPDX-License-Identifier: Apache-2.0
"""Settings, connections and threads of bookdrop's pages in Flower."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sqlalchemy import Engine

from tasks.context import Context
from workers.flower.auth import Operators
from workers.flower.saved_searches import SAVED_SEARCHES, SavedSearch
from workers.flower.trouble import TroubleCounter
from workers.settings import WorkerSettings


@dataclass(frozen=True)
class Resources:
    """One instance for each Flower process."""

    settings: WorkerSettings
    engine: Engine
    context: Context
    operators: Operators
    action_executor: ThreadPoolExecutor
    """One thread, because actions publish on one connection that stays open."""
    trouble: TroubleCounter
    saved_searches: tuple[SavedSearch, ...] = SAVED_SEARCHES
