"""What an audit fails for, and what it only says."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from tests.security import audit

if TYPE_CHECKING:
    from collections.abc import Callable

SOUND = {"name": "sound", "version": "1.0", "vulns": []}
UNKNOWN = {"name": "unknown", "skip_reason": "not found"}
HOLED = {"name": "holed", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"]}]}


def answering(*dependencies: object) -> Callable[[str], str]:
    return lambda _service: json.dumps({"dependencies": dependencies})


@pytest.mark.parametrize(
    ("ask", "status", "said"),
    [
        (answering(SOUND), 0, "no hole in 1 packages"),
        (answering(SOUND, HOLED, UNKNOWN), 1, "holed 1.0: PYSEC-1, fixed in 1.1"),
        (answering(SOUND, UNKNOWN), 0, "NOT AUDITED in full"),
        (lambda _service: "", 0, "NOT AUDITED in full"),
        (lambda service: answering(HOLED)(service) if service == "osv" else "Traceback", 1, "PYSEC-1"),
    ],
    ids=["sound", "a hole", "packages unknown", "no service", "the second service"],
)
def test_an_audit_fails_for_a_hole_and_for_nothing_else(
    ask: Callable[[str], str],
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(audit, "asked", ask)
    assert audit.main() == status
    assert said in capsys.readouterr().out


def test_ci_audits() -> None:
    makefile = (audit.PROJECT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^audit: .*\n\t\$\(BIN\)/python -m tests\.security\.audit$", makefile, re.MULTILINE)
    assert re.search(r"^make .*\baudit\b", (audit.PROJECT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
