"""The settings that `up` writes for other shells."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from worker.cli.up import _for_shell
from worker.config.settings import WorkerSettings

if TYPE_CHECKING:
    import pytest


def test_its_files_are_found_from_another_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = _for_shell(WorkerSettings(inbox_map=Path("map.toml"), server_key_id_file=Path("id"))).splitlines()
    assert f"export CONTACT_SYNC_INBOX_MAP={tmp_path / 'map.toml'}" in lines
    assert f"export CONTACT_SYNC_SERVER_KEY_ID_FILE={tmp_path / 'id'}" in lines
