"""`up --print-unit`: a unit that systemd takes, which runs this very command again."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).parent / "contact-sync"


def printed(where: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, "up", "--print-unit", *arguments], cwd=where, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("name", ["data", 'a "strange" 100% $HOME'])
def test_the_unit_runs_this_command(tmp_path: Path, name: str) -> None:
    unit = printed(tmp_path, "--data", name, "--tcp").stdout
    line = next(each for each in unit.splitlines() if each.startswith("ExecStart="))
    assert line.startswith(f"ExecStart={COMMAND.absolute()} up --data ")
    assert line.endswith(" --tcp")
    assert f"WorkingDirectory={tmp_path}\n" in unit
    assert not (tmp_path / name).exists()  # nothing was started
    verify = shutil.which("systemd-analyze")
    if verify is not None:
        (tmp_path / "contact-sync.service").write_text(unit, encoding="utf-8")
        ran = subprocess.run(
            [verify, "--user", "verify", tmp_path / "contact-sync.service"],
            env={"XDG_RUNTIME_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert "contact-sync.service:" not in ran.stderr


def test_a_unit_without_data_is_refused(tmp_path: Path) -> None:
    ran = printed(tmp_path)
    assert ran.returncode == 2
    assert "--print-unit needs --data DIR" in ran.stderr
