"""The committed result of each proof: what was found, on which commit, when, and of which version.

A file holds what the proof's own command reports, as plain JSON. `made` says of what code; a commit that nobody wrote
down is null. A proof that was run in several parts holds `runs`, each with a `made` of its own.
"""

from __future__ import annotations

import json
import subprocess
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

PROJECT: Final = Path(__file__).parents[2]
RESULTS: Final = PROJECT / "tests" / "proof" / "results"

PROOFS: Final = ("soak", "simulation", "model", "fuzzing", "mutants", "mutation", "endurance")
"""Every proof that may have a result."""

CODE: Final = ("producers", "worker")
"""What the proofs speak of."""


class Made(NamedTuple):
    """Of what code a result is.

    Attributes:
        part: of the proof, empty if it is all of it.
        commit: the commit, with `-dirty` if the tree differed from it; None if nobody wrote it down.
        date: the day, as ISO 8601 has it.
        version: of the project.
    """

    part: str
    commit: str | None
    date: str
    version: str


def version() -> str:
    """The project's version."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["version"])


def git(*words: str) -> str:
    """What git says, empty if it cannot."""
    ran = subprocess.run(["git", *words], cwd=PROJECT, capture_output=True, text=True, check=False)
    return ran.stdout.strip() if ran.returncode == 0 else ""


def made(commit: str | None = None) -> dict[str, str | None]:
    """Of what code a result is that was found now.

    Args:
        commit: the commit if it is known; else that of this tree.
    """
    differs = git("status", "--porcelain", "--", *CODE)
    here = git("rev-parse", "--short=12", "HEAD") + ("-dirty" if differs else "")
    return {"commit": commit or here or None, "date": datetime.now(tz=UTC).date().isoformat(), "version": version()}


def read(proof: str, directory: Path = RESULTS) -> dict[str, Any] | None:
    """The result of a proof, None if there is none."""
    path = directory / f"{proof}.json"
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def write(proof: str, result: dict[str, Any], directory: Path = RESULTS) -> None:
    """Writes the result of a proof."""
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=2, ensure_ascii=False) + "\n"
    (directory / f"{proof}.json").write_text(text, encoding="utf-8")


def add_run(proof: str, run: dict[str, Any], directory: Path = RESULTS) -> None:
    """Adds a run to a proof that has several."""
    found = read(proof, directory) or {"runs": []}
    write(proof, {**found, "runs": [*found["runs"], run]}, directory)


def parts_of(proof: str, result: dict[str, Any]) -> list[Made]:
    """Of what code each part of a result is."""
    if proof == "fuzzing":
        return [_made(name, each) for name, each in result["targets"].items()]
    if "runs" in result:
        return [_made(str(each.get("of", "")), each) for each in result["runs"]]
    return [_made("", result)]


def _made(part: str, result: dict[str, Any]) -> Made:
    told = result["made"]
    return Made(part, told["commit"], told["date"], told["version"])
