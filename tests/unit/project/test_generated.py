"""The pages that are written from the code are what it would write now."""

from __future__ import annotations

import pytest

import producers
from tests.docs.generate import DOCS, pages

PAGES = pages()


@pytest.mark.parametrize("page", sorted(PAGES))
def test_a_page_is_what_the_code_says(page: str) -> None:
    assert (DOCS / page).read_text(encoding="utf-8") == PAGES[page], "python -m tests.docs.generate"


def test_the_python_reference_has_every_public_name() -> None:
    text = PAGES["reference/python.md"]
    assert [name for name in producers.__all__ if f".{name}\n" not in text and f"`{name}`" not in text] == []
