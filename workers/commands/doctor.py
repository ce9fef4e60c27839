# SPDX-License-Identifier: Apache-2.0
"""`bookdrop doctor`: check everything that a Return needs, and print advice."""

import json

import click

from workers.commands.options import json_option


@click.command("doctor")
@json_option
def doctor_command(as_json: bool) -> None:
    """Check settings, database, printers, broker, workers, clocks, disks and waiting messages. Changes nothing.

    A "note" is a passing check with advice; it stops no Return.
    Exit code 0 if a worker would reply to a scan and print its slip, else 1.
    """
    from workers.doctor.checks import diagnose

    findings = diagnose()
    if as_json:
        click.echo(json.dumps([finding.as_dict() for finding in findings], indent=2))
    else:
        for finding in findings:
            label, colour = (
                ("BAD", "red") if not finding.ok else ("note", "yellow") if finding.advice else ("ok", "green")
            )
            click.echo(f"{click.style(f'{label:<5}', fg=colour)}{finding.part:<12}{finding.message}")
            if finding.advice:
                click.echo(f"                 -> {finding.advice}")
    raise SystemExit(0 if all(finding.ok for finding in findings) else 1)
