# SPDX-License-Identifier: Apache-2.0
"""Where settings come from: the environment, `bookdrop.toml`, files with secrets. Unknown keys are refused.

Each side (workers, stations) declares its fields on top of `SideSettings`; nothing is read until `load` is called.
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
SEARCHED = (Path("bookdrop.toml"), Path(".bookdrop/bookdrop.toml"))
NO_SETTING = frozenset({"BOOKDROP_CONFIG", "BOOKDROP_HOME"})
"""Variables of ours that name places and belong to no side."""


class ConfigurationError(Exception):
    """The settings cannot be used. The text says which, why, and what to do."""


class SideSettings(BaseSettings):
    """Settings of one side. A subclass names its environment prefix and its table in `bookdrop.toml`."""

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
        """Take only what `load` gathered, so that nothing is read behind its back."""
        return (init_settings,)

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Read the settings; `overrides` win over the environment, which wins over `bookdrop.toml`.

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

    Raises `ConfigurationError` when `$BOOKDROP_CONFIG` names a file that is not there.
    """
    named = os.environ.get("BOOKDROP_CONFIG")
    if named:
        if not Path(named).is_file():
            raise ConfigurationError(f"BOOKDROP_CONFIG names {named}, and there is no such file.")
        return Path(named)
    return next((path for path in SEARCHED if path.is_file()), None)


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


def _from_environment(cls: type[SideSettings]) -> dict[str, Any]:
    prefix = str(cls.model_config.get("env_prefix", PREFIX))
    others = () if prefix != PREFIX else tuple(f"{PREFIX}{side}_" for side in ("STATION", "TEST"))
    values: dict[str, Any] = {}
    for variable, text in os.environ.items():
        if not variable.startswith(prefix) or variable.startswith(others) or variable in NO_SETTING:
            continue
        name = variable.removeprefix(prefix).lower()
        if name in cls.model_fields:
            values[name] = text
        elif name.endswith("_file") and name.removesuffix("_file") in cls.model_fields:
            values[name.removesuffix("_file")] = _secret(variable, text)
        else:
            known = [prefix + field.upper() for field in cls.model_fields]
            raise ConfigurationError(_unknown(f"environment variable {variable}", variable, known))
    return values


def _secret(variable: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{variable} names {path}, which cannot be read: {error}") from None


def _unknown(what: str, name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"{what} is no setting." + (f" Did you mean {near[0]}?" if near else f" Known: {', '.join(sorted(known))}.")


def _explain(cls: type[SideSettings], error: Mapping[str, Any]) -> str:
    name = str(error["loc"][0]) if error["loc"] else cls.table
    prefix = str(cls.model_config.get("env_prefix", PREFIX))
    return f"Setting {name} ({prefix}{name.upper()}, or {name} under [{cls.table}] in bookdrop.toml): {error['msg']}."
