# SPDX-License-Identifier: Apache-2.0
"""The argument that names a slip: its id, its code, or the end of either."""

from typing import Any
from uuid import UUID

import click

from workers.commands.sessions import reading


class SlipId(click.ParamType[UUID]):
    """The id of a print job: as lists print it, the slip's code, or the last digits or letters of either."""

    name = "slip"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> UUID:
        """Parse the id; look a short form up in the database."""
        from schemas.slip_codes import DIGITS, parse_typed, short_code
        from tasks.printing.slip_lookup import find_slips

        if isinstance(value, UUID):
            return value
        meanings = parse_typed(str(value))
        if not meanings:
            self.fail(
                f"{value} is not the id or the code of a slip. Run 'bookdrop prints list' to see all.", param, ctx
            )
        if all(len(digits) == DIGITS for digits in meanings) and len(meanings) == 1:
            return UUID("".join(meanings))
        with reading() as connection:
            found = find_slips(connection, meanings)
        if len(found) == 1:
            return found[0].job_id
        if not found:
            raise click.ClickException(f"There is no slip {value}. Run 'bookdrop prints list' to see all.")
        candidates = "\n".join(
            f"  {each.job_id}  {short_code(each.job_id)}  {each.request}  item {each.barcode}" for each in found
        )
        raise click.ClickException(
            f"{value} is the end of several slips' codes. Type more of it. Nothing was changed.\n{candidates}"
        )
