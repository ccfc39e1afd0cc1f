"""What a demo says to try next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from worker.cli import demo

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("path", "command"), [(".venv/bin", "contact-sync"), ("", ".venv/bin/contact-sync")])
def test_the_next_commands_can_be_copied_as_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, command: str
) -> None:
    program = tmp_path / ".venv" / "bin" / "contact-sync"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [str(program), "demo"])
    monkeypatch.setenv("PATH", str(tmp_path / path))
    said = demo.next_steps()
    assert f"\n  {command} up --stand-in " in said
