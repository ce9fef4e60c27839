# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share."""

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
actor_option = click.option("--actor", help="Name of the operator (default: your login name); recorded in the history.")
