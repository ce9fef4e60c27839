# SPDX-License-Identifier: Apache-2.0
"""Files of deploy/ as the tests read them: units with their instances, and the compose file."""

from pathlib import Path
from typing import Any

import yaml

from tests.systemd import Unit

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
INSTANCES = {
    "bookdrop-worker@.service": ("returns", "housekeeping", "printing"),
    "bookdrop-printing@.service": ("main",),
}
UNITS = [
    Unit(path, instance)
    for path in sorted(DEPLOY.glob("*/*.service"))
    for instance in INSTANCES.get(path.name, ("",))
]  # fmt: skip
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
