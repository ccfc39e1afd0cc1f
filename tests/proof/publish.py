"""``python -m tests.proof.publish``: writes what the proofs found into the documentation, and says how old each is.

A document has a block between two comments, `<!-- proof:begin NAME -->` and `<!-- proof:end -->`. What stands between
them is written by this command alone, from tests/proof/results; a test fails where text and file differ.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from tests.proof.pages import written
from tests.proof.published import CODE, PROJECT, PROOFS, Made, add_run, git, parts_of, read, version

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_EXPLANATION: Final = PROJECT / "docs" / "explanation"
DOCUMENTS: Final = (PROJECT / "README.md", _EXPLANATION / "proof.md", _EXPLANATION / "soak.md")

_EPILOG = """\b
Examples:
  make proof                                     after a run has written its result
  python -m tests.proof.publish --check          what CI asks
  python -m tests.proof.publish --soak build/soak/soak.json
"""


def results() -> dict[str, dict[str, Any]]:
    """The results that there are, by proof."""
    return {proof: found for proof in PROOFS if (found := read(proof)) is not None}


def pages() -> dict[Path, str]:
    """What each document must hold."""
    found = results()
    return {each: written(each.read_text(encoding="utf-8"), found) for each in DOCUMENTS}


def minor_of(text: str) -> str:
    """The minor version that a version is of: ``0.1`` of ``0.1.3``."""
    return ".".join(text.split(".")[:2])


def ages(found: Mapping[str, dict[str, Any]]) -> Iterator[tuple[str, bool]]:
    """A line for each proof, and whether it is of another minor version."""
    ours = minor_of(version())
    for proof in PROOFS:
        if proof not in found:
            yield f"{proof}: no result", False
            continue
        # Parts of one commit have one age.
        parts: dict[tuple[str | None, str, str], list[str]] = {}
        for each in parts_of(proof, found[proof]):
            parts.setdefault(each[1:], []).append(each.part)
        for told, names in parts.items():
            part = Made(", ".join(filter(None, dict.fromkeys(names))), *told)
            other = minor_of(part.version) != ours
            named = f"{proof} ({part.part})" if part.part else proof
            yield (
                f"{named}: {_age(part)}{f'; it is of version {part.version}, this is {version()}' if other else ''}",
                other,
            )


def _age(part: Made) -> str:
    """How many commits have touched the code since."""
    commit = (part.commit or "").removesuffix("-dirty")
    when = f"of {part.date}, commit {part.commit}" if commit else f"of {part.date}, of a commit that nobody noted"
    if commit and not git("cat-file", "-t", commit):
        return f"{when}, which is not in this history"
    since = (f"{commit}..HEAD",) if commit else (f"--since={part.date}T23:59:59Z",)
    newer = git("log", "--format=%h of %cs", *since, "--", *CODE).splitlines()
    if not git("rev-parse", "HEAD"):
        return f"{when}; without a history nobody can tell what changed since"
    if not newer:
        return f"{when}: as new as the code"
    commits = "1 commit has" if len(newer) == 1 else f"{len(newer)} commits have"
    return f"{when}: older than the code, {commits} touched {' or '.join(CODE)} since, the last {newer[0]}"


@click.command(epilog=_EPILOG)
@click.option("--check", "only", is_flag=True, help="Write nothing; warn if a proof is of another minor version.")
@click.option(
    "--soak",
    "reports",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Add a run of the soak: the report that `make soak` wrote.",
)
@click.option("--machine", default="", help="What that soak ran on, in words.")
def main(*, only: bool, reports: tuple[Path, ...], machine: str) -> None:
    """Writes what the proofs found into the documentation, and says which proof is older than the code it speaks of.

    Exit status 0, whatever it says: an old proof is not an error, but nobody should take it for a new one.
    """
    for report in reports:
        run = json.loads(report.read_text(encoding="utf-8"))
        add_run("soak", {**({"machine": machine} if machine else {}), **run})
    for line, other in ages(results()):
        click.echo(f"warning: {line}" if other else line, err=other)
    if not only:
        for path, text in pages().items():
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
