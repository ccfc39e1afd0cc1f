"""The fenced blocks of README.md and of the pages in `docs`, and the reason of those that are not run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_FENCE: Final = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_NOT_RUN: Final = re.compile(r"<!-- not run: (.+) -->\n *\Z")
_FILE: Final = re.compile(r"# (\w+\.py)\n")


class Block(NamedTuple):
    """A fenced block.

    Attributes:
        page: the file it is in, from the project's root.
        line: the line it begins at.
        language: its language; empty if it has none.
        text: what is in it, without its indentation.
        not_run: why it cannot be run here; None if it is run.
        file: the name of the file that it is, by its first line; None if it is none.
    """

    page: str
    line: int
    language: str
    text: str
    not_run: str | None
    file: str | None

    def __str__(self) -> str:
        """Where it is."""
        return f"{self.page}:{self.line}"


def blocks_of(path: Path) -> list[Block]:
    """Every fenced block of a page, in order."""
    document, found = path.read_text(encoding="utf-8"), []
    for fence in _FENCE.finditer(document):
        reason = _NOT_RUN.search(document, 0, fence.start())
        text = re.sub(rf"^{fence[1]}", "", fence[3], flags=re.MULTILINE)
        file = _FILE.match(text)
        found.append(
            Block(
                path.relative_to(ROOT).as_posix(),
                document.count("\n", 0, fence.start()) + 1,
                fence[2],
                text,
                reason[1] if reason else None,
                file[1] if file else None,
            )
        )
    return found


BLOCKS: Final = [block for page in PAGES for block in blocks_of(page)]
