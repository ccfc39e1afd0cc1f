"""What a planted bug is: a few words replaced in the code, and the checks that must see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class DoesNotApply(Exception):  # noqa: N818 - a name that says what happened needs no suffix
    """The code that a patch is to replace is not there, or not just once."""


@dataclass(frozen=True, slots=True)
class Patch:
    """One piece of a file replaced by another.

    Attributes:
        path: of the file, from the project's root.
        old: what must be in it exactly once.
        new: what stands there instead.
    """

    path: str
    old: str
    new: str

    def applied_to(self, text: str) -> str:
        """The file's text with the bug in it.

        Raises:
            DoesNotApply: the old piece is not there, or more than once.
        """
        times = text.count(self.old)
        if times != 1:
            raise DoesNotApply(f"{self.path}: there {times} times and not once: {self.old.strip().splitlines()[0]!r}")
        return text.replace(self.old, self.new)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One planted bug.

    Attributes:
        name: for `--only` and the table.
        why: what it breaks, in one line.
        patches: what makes it.
        unit: files or single tests that need no process and little time, the cheapest first.
        integration: tests with a real Redis, tried where nothing else has turned red.
        simulated: whether the simulation meets the code that is broken; then it is asked in any case.
    """

    name: str
    why: str
    patches: tuple[Patch, ...]
    unit: tuple[str, ...] = ()
    integration: tuple[str, ...] = ()
    simulated: bool = True

    def patched(self, root: Path) -> Iterator[tuple[str, str]]:
        """Each file that it touches, with its new text.

        Raises:
            DoesNotApply: the code has changed; the patch must follow.
        """
        texts: dict[str, str] = {}
        for patch in self.patches:
            before = texts.get(patch.path) or (root / patch.path).read_text(encoding="utf-8")
            texts[patch.path] = patch.applied_to(before)
        yield from texts.items()

    def plant(self, root: Path) -> None:
        """Puts the bug into a copy of the tree.

        Raises:
            DoesNotApply: the code has changed; the patch must follow.
        """
        for path, text in self.patched(root):
            (root / path).write_text(text, encoding="utf-8")
