"""Writes the figures of the documentation from tests/bench/results.json: `make figures`.

A document has a block between two comments, `<!-- bench:begin NAME -->` and `<!-- bench:end -->`. What stands between
them is written by this command alone; a test fails where text and file differ.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from tests.bench.processes import PROJECT
from tests.bench.report import chart, compiled, headline, plan, reconciling, report, sizes
from tests.bench.run import RESULTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

DOCUMENTS: Final = (
    PROJECT / "README.md",
    *(PROJECT / "docs" / each for each in ("explanation/performance.md", "how-to/sizing.md", "how-to/reconcile.md")),
)
CHART: Final = PROJECT / "docs" / "images" / "drain-20ms.svg"
BLOCKS: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "headline": headline,
    "report": report,
    "sizes": sizes,
    "reconciling": reconciling,
    "plan": plan,
    "compiled": compiled,
}

_BLOCK: Final = re.compile(r"(<!-- bench:begin (\w+) -->\n).*?(\n?<!-- bench:end -->)", re.DOTALL)


def written(text: str, found: Mapping[str, Any]) -> str:
    """A document with its blocks as they follow from the results."""
    return _BLOCK.sub(lambda block: f"{block[1]}\n{BLOCKS[block[2]](found)}\n\n{block[3].lstrip()}", text)


def figures() -> dict[Path, str]:
    """What each file must hold."""
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    return {each: written(each.read_text(encoding="utf-8"), found) for each in DOCUMENTS} | {CHART: chart(found)}


def main() -> None:
    """Writes them."""
    for path, text in figures().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
