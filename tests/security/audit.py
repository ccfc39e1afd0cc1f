"""Known holes in what the lock pins: `make audit`. A finding fails; a service that cannot be asked is said, no more."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[2]
SERVICES = ("pypi", "osv")
TIMEOUT_SECONDS = 300


def asked(service: str) -> str:
    """What pip-audit found by asking one service, as JSON; empty or no JSON where it could not."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(PROJECT / "requirements.txt")]
    command += ["--disable-pip", "--require-hashes", "--progress-spinner", "off"]
    command += ["--format", "json", "--vulnerability-service", service]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return ""
    return ran.stdout


def judged(answer: str) -> tuple[list[str], list[str], int]:
    """Findings, a line each; the packages that the service does not know; and how many it knows.

    Raises:
        ValueError: the answer is none.
    """
    every: list[dict[str, Any]] = json.loads(answer)["dependencies"]
    findings = [
        f"{each['name']} {each['version']}: {hole['id']}, fixed in {', '.join(hole['fix_versions']) or 'no version'}"
        for each in every
        for hole in each.get("vulns", ())
    ]
    unknown = [each["name"] for each in every if "skip_reason" in each]
    return findings, unknown, len(every) - len(unknown)


def main() -> int:
    """Asks one service after the other until one knows of every package."""
    for service in SERVICES:
        try:
            findings, unknown, known = judged(asked(service))
        except ValueError:
            print(f"audit: {service} could not be asked")  # noqa: T201 - it is for people
            continue
        for finding in findings:
            print(f"audit: {finding}")  # noqa: T201 - it is for people
        if findings:
            return 1
        print(f"audit: {service} knows of no hole in {known} packages, and knows nothing of {len(unknown)}")  # noqa: T201 - it is for people
        if not unknown:
            return 0
    print("audit: NOT AUDITED in full: no service could be asked about every package")  # noqa: T201 - it is for people
    return 0


if __name__ == "__main__":
    sys.exit(main())
