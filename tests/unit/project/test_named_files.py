"""Files and headings that the documentation names are there. `make docs` checks the links between pages of the site."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.docs.blocks import PAGES, ROOT

if TYPE_CHECKING:
    from pathlib import Path

PATH = re.compile(r"`((?:deploy|docs|examples|producers|tests|worker)/[\w./-]*)`")
NAMED = sorted(
    {(str(page.relative_to(ROOT)), path) for page in PAGES for path in PATH.findall(page.read_text("utf-8"))}
)
LINKED = re.findall(r"\]\(([^)#:]+\.md)#([\w-]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as both the site and a repository's viewer make them."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", heading.lower())) for heading in headings}


@pytest.mark.parametrize(("page", "path"), NAMED)
def test_a_file_that_a_page_names_is_there(page: str, path: str) -> None:
    assert (ROOT / path).exists(), page


@pytest.mark.parametrize(("page", "anchor"), LINKED)
def test_a_heading_that_the_readme_links_to_is_there(page: str, anchor: str) -> None:
    assert anchor in anchors_of(ROOT / page)
