"""Paths on the command line: what no file can be called is wrong usage, in one line."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from worker.cli.main import main


@pytest.mark.parametrize("path", ["", "a\0b"], ids=["empty", "NUL"])
@pytest.mark.parametrize(
    "args",
    [
        ["up", "--data"],
        ["up", "--data", "d", "--backup"],
        ["up", "--data", "d", "--restore"],
        ["emit", "--unsent"],
        ["endpoint", "--key-secret-file"],
        ["reconcile", "-", "--diff"],
        ["reconcile", "-", "--rejects"],
        ["conform", "--map"],
    ],
    ids=" ".join,
)
def test_what_names_no_file_is_wrong_usage(args: list[str], path: str) -> None:
    ended = CliRunner().invoke(main, [*args, path])
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert f"Invalid value for '{args[-1]}': must be a path" in ended.stderr
