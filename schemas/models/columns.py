# SPDX-License-Identifier: Apache-2.0
"""Column types and the declarative base of all tables."""

from datetime import UTC, datetime
from typing import Annotated, Any

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Enum, Integer, MetaData, String, Table
from sqlalchemy.orm import DeclarativeBase, mapped_column
from sqlalchemy.types import TypeDecorator

from schemas.print_jobs import PrintState
from schemas.request_status import RequestStatus


class UtcDateTime(TypeDecorator[datetime]):
    """Stores and returns aware UTC; raises `ValueError` for a naive time. SQLite stores it without the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert an aware time to UTC; naive on SQLite, which stores no zone."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a time without a zone cannot be stored: {value!r}")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return aware UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


BigId = BigInteger().with_variant(Integer, "sqlite")
"""An integer that grows without limit; SQLite increments only a plain INTEGER primary key."""

Id = Annotated[int, mapped_column(BigId, primary_key=True, autoincrement=True)]
Code = Annotated[str, mapped_column(String(40))]
Short = Annotated[str, mapped_column(String(200))]


def enum_type(kind: type[RequestStatus] | type[PrintState]) -> Enum:
    """Column type of an enumeration, stored as its value in a string: there is no database enum to migrate."""
    return Enum(
        kind, native_enum=False, length=30, values_callable=lambda e: [m.value for m in e], create_constraint=False
    )


class Model(DeclarativeBase):
    """The declarative base of all tables, with constraint names on which migrations depend."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_N_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it as a plain class attribute
        datetime: UtcDateTime(),
        dict[str, Any]: JSON(),
        list[str]: JSON(),
        RequestStatus: enum_type(RequestStatus),
        PrintState: enum_type(PrintState),
    }


def table(model: type[Model]) -> Table:
    """The table of `model`, for statements that handle many rows and need no identity map."""
    found: Table = model.__table__  # type: ignore[assignment]  # declared as FromClause; every model here has a Table
    return found
