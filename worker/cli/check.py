"""``contact-sync check``: checks settings, Redis, broker, credentials and endpoint."""

from __future__ import annotations

import os
import time
from itertools import chain
from typing import Final

import click

from producers.settings import read_dotenv
from worker.admin.check import check_all, check_variables
from worker.cli.session import EXIT_FAILED, echo_json, painted, printable, shown_url
from worker.config.settings import load_worker_settings

_COLORS: Final = {"ok": "green", "warn": "yellow", "wrong": "red"}

_EPILOG = """\b
Example:
  contact-sync check
  contact-sync check --json | jq .ok
"""


@click.command(epilog=_EPILOG)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(*, as_json: bool) -> None:
    """Check settings, Redis, broker, credentials and endpoint, one line each.

    To check the endpoint it sends a request that changes nothing. Exit status 1 if anything is wrong.
    """
    settings = load_worker_settings(require_credentials=False)
    findings = []
    for finding in chain(check_variables(_set_variables()), check_all(settings, shown_url, time.time)):
        findings.append(finding)
        if not as_json:
            severity = painted(f"{finding.severity:<6}", _COLORS[finding.severity])
            click.echo(f"{severity} {finding.name:<12} {printable(finding.message)}")
    wrong = any(finding.severity == "wrong" for finding in findings)
    if as_json:
        echo_json({"ok": not wrong, "checks": [finding._asdict() for finding in findings]})
    if wrong:
        raise click.exceptions.Exit(EXIT_FAILED)


def _set_variables() -> set[str]:
    """Names of the variables in the environment and in ``.env``."""
    return {*os.environ, *read_dotenv()}
