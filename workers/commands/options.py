# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share."""

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
actor_option = click.option("--actor", help="Name of the operator (default: your login name); recorded in the history.")
csv_option = click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")


def spreadsheet_safe(value: object) -> object:
    """The value of a CSV cell. A text that a spreadsheet would run as a formula gets an apostrophe before it."""
    if isinstance(value, str) and value.lstrip()[:1] in {"=", "+", "-", "@"}:
        return f"'{value}"
    return value
