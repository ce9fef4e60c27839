# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share, and the operator who runs a command."""

import os
import pwd
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tasks.operator import Operator

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
actor_option = click.option(
    "--actor", help="Name of the operator (default: your account on this computer); recorded in the history."
)
csv_option = click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")


def command_operator(actor: str | None, reason: str | None) -> "Operator":
    """Return the person who runs the command: by the account of the process, or by a typed name beside the account.

    The account is that of the process, because every user can set the variables LOGNAME and USER.
    """
    from tasks.operator import Identification, Operator

    account = account_name()
    if actor is None:
        return Operator(account, reason, Identification.ACCOUNT)
    return Operator(actor, reason, Identification.TYPED, account)


def account_name() -> str:
    """Return the name of the account that runs this process; `uid 10001` where it has none, as in a container."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def spreadsheet_safe(value: object) -> object:
    """The value of a CSV cell. A text that a spreadsheet would run as a formula gets an apostrophe before it."""
    if isinstance(value, str) and value.lstrip()[:1] in {"=", "+", "-", "@"}:
        return f"'{value}"
    return value
