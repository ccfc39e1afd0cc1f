"""docs/how-to/messages.md quotes messages that the code can say."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "how-to" / "messages.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"^\| `([^`]+)` \| .* \| .* \|$", PAGE.partition("## When something fails")[0], re.MULTILINE)


@cache
def texts() -> list[str]:
    """Every text in the code, those of an f-string without what is filled in, and the page's script."""
    found = [(ROOT / "worker" / "serve" / "page" / "page.js").read_text(encoding="utf-8")]
    for path in [*(ROOT / "worker").rglob("*.py"), *(ROOT / "producers").rglob("*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found += [
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
    return found


def test_there_are_messages() -> None:
    assert len(QUOTED) > 40


@pytest.mark.parametrize("message", QUOTED)
def test_the_code_can_say_it(message: str) -> None:
    parts = [part.strip(" ,") for part in message.split("…")]
    missing = [part for part in parts if part and not any(part in text for text in texts())]
    assert missing == []
