# SPDX-License-Identifier: Apache-2.0
"""The reference page of settings, generated from the settings classes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from docs.generate.markdown import table
from schemas.configuration import ProgramSettings
from stations.settings import StationSettings
from workers.settings import WorkerSettings

PAGE: Final = Path("docs/reference/settings.md")

_HEAD: Final = """# Settings

Each setting is an environment variable, or a key in `bookdrop.toml`; the variable takes precedence. The file is the one
that `BOOKDROP_CONFIG` names, or `bookdrop.toml` in the working directory, or `.bookdrop/bookdrop.toml`. Any setting can be
read from a file, which keeps secrets out of the environment: set `BOOKDROP_STATION_KEY_FILE=/run/secrets/key` instead of
`BOOKDROP_STATION_KEY`. An unknown key is refused, with a suggestion. `BOOKDROP_HOME` is the directory of `bookdrop up`
(default: `.bookdrop`). This page is generated from the code (`make docs`).
"""


def page() -> str:
    """The page, as Markdown."""
    return "\n".join(
        [_HEAD, *_section("Workers and operations", WorkerSettings), *_section("Stations", StationSettings)]
    )


def _section(title: str, settings: type[ProgramSettings]) -> Iterator[str]:
    prefix = str(settings.model_config.get("env_prefix"))
    yield f"## {title}: `[{settings.table}]`"
    yield ""
    yield f"The key in the file is the variable's name without `{prefix}`, in lower case."
    yield ""
    yield from table(
        ("variable", "default", "description"),
        (
            (
                f"`{prefix}{name.upper()}`",
                "required" if field.is_required() else _default(field.get_default()),
                field.description or "",
            )
            for name, field in settings.model_fields.items()
        ),
    )
    yield ""


def _default(value: Any) -> str:
    if value is None or value == "":
        return "none"
    if hasattr(value, "get_secret_value"):
        value = value.get_secret_value()
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"
