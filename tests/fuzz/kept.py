"""The kept inputs: a text file for each target, an input a line, so that a person can read them and Git can compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

CORPUS: Final = Path(__file__).parent / "corpus"
FOUND: Final = Path(__file__).parent / "found"


def read(name: str, directory: Path = CORPUS) -> list[bytes]:
    """The kept inputs of a target; none if there is no such file."""
    path = directory / f"{name}.txt"
    if not path.exists():
        return []
    return [_bytes(line) for line in path.read_text(encoding="ascii").splitlines()]


def write(name: str, inputs: Iterable[bytes], directory: Path = CORPUS) -> None:
    """Keeps these inputs, the shortest first."""
    lines = sorted({_line(each) for each in inputs}, key=lambda line: (len(line), line))
    directory.mkdir(exist_ok=True)
    (directory / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="ascii")


def _line(data: bytes) -> str:
    return data.decode("latin-1").encode("unicode_escape").decode("ascii")


def _bytes(line: str) -> bytes:
    return line.encode("ascii").decode("unicode_escape").encode("latin-1")
