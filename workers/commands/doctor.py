# SPDX-License-Identifier: Apache-2.0
"""`bookdrop doctor`: looks at everything a Return needs, and says what to do."""

import json

import click


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def doctor_command(as_json: bool) -> None:
    """Check settings, database, printers, broker, workers, clocks, disks, and what waits. Changes nothing.

    A "note" is worth a look, and nothing stands still for it.
    Exit code 0 when a scan would be answered and its slip printed, else 1.
    """
    from workers.doctor.checks import diagnose

    findings = diagnose()
    if as_json:
        click.echo(json.dumps([finding.as_dict() for finding in findings], indent=2))
    else:
        for finding in findings:
            word, colour = (
                ("BAD", "red") if not finding.good else ("note", "yellow") if finding.advice else ("ok", "green")
            )
            click.echo(f"{click.style(f'{word:<5}', fg=colour)}{finding.part:<12}{finding.words}")
            if finding.advice:
                click.echo(f"                 -> {finding.advice}")
    raise SystemExit(0 if all(finding.good for finding in findings) else 1)
