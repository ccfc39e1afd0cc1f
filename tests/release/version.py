"""Holds a release's tag against the version of the project: `python -m tests.release.version v1.2.3`."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).parents[2]


def faults(tag: str, version: str, changelog: str) -> list[str]:
    """What speaks against a release with this tag."""
    found = []
    if tag != f"v{version}":
        found.append(f"the tag is {tag}, and pyproject.toml says version {version}: it must be v{version}")
    if not re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", changelog, re.MULTILINE):
        found.append(f"CHANGELOG.md has no heading `## [{version}] - YYYY-MM-DD`")
    return found


def main(*tags: str) -> None:
    """Exits with 1 and a line for each fault; without a tag nothing is held against anything."""
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    changelog = (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")
    found = [fault for tag in tags for fault in faults(tag, version, changelog)]
    if found:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
