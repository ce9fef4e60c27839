# SPDX-License-Identifier: Apache-2.0
"""Load templates from two folders: bookdrop's, then Flower's own, which bookdrop's templates extend."""

from pathlib import Path
from typing import Final

from tornado.template import BaseLoader, Template

TEMPLATES: Final = Path(__file__).parent / "templates"
FLOWER_PREFIX: Final = "flower/"
"""Prefix that selects Flower's template where bookdrop has one of the same name."""


class TemplateLoader(BaseLoader):
    """Loads a template from bookdrop's folder, or from the folder `flower_templates`."""

    def __init__(self, flower_templates: Path) -> None:
        super().__init__()
        self._flower_templates = flower_templates

    def resolve_path(self, name: str, parent_path: str | None = None) -> str:
        """Return the name unchanged: both folders are flat."""
        return name

    def _create_template(self, name: str) -> Template:
        plain = name.removeprefix(FLOWER_PREFIX)
        own = TEMPLATES / plain
        path = own if name == plain and own.is_file() else self._flower_templates / plain
        return Template(path.read_bytes(), name=name, loader=self)
