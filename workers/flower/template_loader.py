# SPDX-License-Identifier: Apache-2.0
"""Templates from two folders: ours, and below them Flower's own, which ours extend."""

from pathlib import Path
from typing import Final

from tornado.template import BaseLoader, Template

OURS: Final = Path(__file__).parent / "templates"
OF_FLOWER: Final = "flower/"
"""Before a name: Flower's own template, where we have one of the same name."""


class TemplateLoader(BaseLoader):
    """Finds a template among ours, then among Flower's in the folder `flowers`."""

    def __init__(self, flowers: Path) -> None:
        super().__init__()
        self._flowers = flowers

    def resolve_path(self, name: str, parent_path: str | None = None) -> str:
        """Names are of one level: there is nothing to resolve."""
        return name

    def _create_template(self, name: str) -> Template:
        plain = name.removeprefix(OF_FLOWER)
        ours = OURS / plain
        path = ours if name == plain and ours.is_file() else self._flowers / plain
        return Template(path.read_bytes(), name=name, loader=self)
