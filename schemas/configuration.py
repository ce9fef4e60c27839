# SPDX-License-Identifier: Apache-2.0
"""Settings from the environment, from `bookdrop.toml` and from files with secrets. Unknown keys are refused.

Each program (workers, stations) declares its fields in a subclass of `ProgramSettings`. `load` reads them; importing does
not.
"""

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

PREFIX = "BOOKDROP_"
TABLES = ("workers", "station")
DEFAULT_FILES = (Path("bookdrop.toml"), Path(".bookdrop/bookdrop.toml"))
PATH_VARIABLES = frozenset({"BOOKDROP_CONFIG", "BOOKDROP_HOME"})
"""Environment variables that hold paths and are not settings."""


class ConfigurationError(Exception):
    """Settings that cannot be used. The text names the setting, the cause and the next step."""


class ProgramSettings(BaseSettings):
    """Settings of one program. A subclass names its environment prefix and its table in `bookdrop.toml`."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    table: ClassVar[str]
    """`workers` or `station`."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Accept only the values that `load` collected, and read no other source."""
        return (init_settings,)

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Read the settings. `overrides` take precedence over the environment, and that over `bookdrop.toml`.

        Raises `ConfigurationError`.
        """
        values = {**_from_file(cls.table), **_from_environment(cls), **overrides}
        unknown = sorted(set(values) - set(cls.model_fields))
        if unknown:
            raise ConfigurationError(_unknown(f"[{cls.table}] {unknown[0]}", unknown[0], list(cls.model_fields)))
        try:
            return cls(**values)
        except ValidationError as error:
            raise ConfigurationError("\n".join(_explain(cls, line) for line in error.errors())) from None


def config_file() -> Path | None:
    """The configuration file in use: `$BOOKDROP_CONFIG`, `./bookdrop.toml` or `./.bookdrop/bookdrop.toml`.

    Raises `ConfigurationError` when `$BOOKDROP_CONFIG` names a file that does not exist.
    """
    named = os.environ.get("BOOKDROP_CONFIG")
    if named:
        if not Path(named).is_file():
            raise ConfigurationError(f"BOOKDROP_CONFIG names {named}, and there is no such file. Correct or unset it.")
        return Path(named)
    return next((path for path in DEFAULT_FILES if path.is_file()), None)


def _from_file(table: str) -> dict[str, Any]:
    path = config_file()
    if path is None:
        return {}
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read as TOML: {error}") from None
    for name in content:
        if name not in TABLES or not isinstance(content[name], dict):
            raise ConfigurationError(f"{path}: " + _unknown(name, name, [f"[{t}]" for t in TABLES]))
    values: dict[str, Any] = content.get(table, {})
    return values


def _from_environment(cls: type[ProgramSettings]) -> dict[str, Any]:
    prefix = str(cls.model_config.get("env_prefix", PREFIX))
    other_prefixes = () if prefix != PREFIX else tuple(f"{PREFIX}{name}_" for name in ("STATION", "TEST"))
    values: dict[str, Any] = {}
    for variable, text in os.environ.items():
        if not variable.startswith(prefix) or variable.startswith(other_prefixes) or variable in PATH_VARIABLES:
            continue
        name = variable.removeprefix(prefix).lower()
        if name in cls.model_fields:
            values[name] = text
        elif name.endswith("_file") and name.removesuffix("_file") in cls.model_fields:
            values[name.removesuffix("_file")] = _read_secret(variable, text)
        else:
            known = [prefix + field.upper() for field in cls.model_fields]
            raise ConfigurationError(_unknown(f"environment variable {variable}", variable, known))
    return values


def _read_secret(variable: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{variable} names {path}, which cannot be read: {error}") from None


def _unknown(what: str, name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"Unknown setting {what}." + (
        f" Did you mean {near[0]}?" if near else f" Known: {', '.join(sorted(known))}."
    )


def _explain(cls: type[ProgramSettings], error: Mapping[str, Any]) -> str:
    name = str(error["loc"][0]) if error["loc"] else cls.table
    prefix = str(cls.model_config.get("env_prefix", PREFIX))
    return f"Setting {name} ({prefix}{name.upper()}, or {name} under [{cls.table}] in bookdrop.toml): {error['msg']}."
