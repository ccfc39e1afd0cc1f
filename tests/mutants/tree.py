"""A copy of the tree in which a bug may be planted, with an environment in which the copy is the code that runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from types import TracebackType

PROJECT: Final = Path(__file__).parents[2]

_LEFT_OUT: Final = shutil.ignore_patterns(".*", "__pycache__", "build", "dist")
_COPIED: Final = ("producers", "worker", "tests", "docs", "examples", "deploy")
_ASK: Final = "import producers, worker, worker.store.scripts; print(producers.__file__, worker.__file__, sep='\\n')"


class WrongTree(Exception):  # noqa: N818 - a name that says what happened needs no suffix
    """A process of the copy's environment runs other code than the copy's."""


class Tree:
    """A copy of the project, gone when the context ends.

    The project is installed where its packages are, and in a way that points at the project itself. So the copy has an
    environment of its own: one that finds the copy first, then those packages, and never that pointer. Whatever a test
    starts with nothing but a PATH runs there, too.

    Attributes:
        root: where it lies.
        python: its interpreter.
    """

    def __enter__(self) -> Self:
        self.root = Path(tempfile.mkdtemp(prefix="contact-sync-mutant-"))
        try:
            self._fill()
        except BaseException:
            shutil.rmtree(self.root, ignore_errors=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.root, ignore_errors=True)

    @property
    def environment(self) -> dict[str, str]:
        """What its processes get: this one's, but for whatever could lead to other code."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CONTACT_SYNC_"))}
        kept |= {"PATH": f"{self.python.parent}{os.pathsep}{kept.get('PATH', os.defpath)}", "CI": "1"}
        return kept | {"VIRTUAL_ENV": str(self.python.parents[1]), "PYTHONHASHSEED": "0"}

    def _fill(self) -> None:
        for name in _COPIED:
            shutil.copytree(PROJECT / name, self.root / name, ignore=_LEFT_OUT)
        for path in PROJECT.iterdir():
            if path.is_file():
                shutil.copy2(path, self.root / path.name)
        self._make_environment()
        self._prove()

    def _make_environment(self) -> None:
        home = self.root / ".venv"
        packages = home / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
        packages.mkdir(parents=True)
        self.python = home / "bin" / "python"
        self.python.parent.mkdir()
        self.python.symlink_to(Path(sys.executable).resolve())
        configured = f"home = {Path(sys.executable).resolve().parent}\ninclude-system-site-packages = false\n"
        (home / "pyvenv.cfg").write_text(configured, encoding="utf-8")
        # What stands in a .pth is put on the path; the .pth files of a directory that got there so are not read.
        found = f"{self.root}\n{sysconfig.get_path('purelib')}\n"
        (packages / "copy.pth").write_text(found, encoding="utf-8")
        # Servers and tools that were brought: a test that misses them is skipped, and sees nothing.
        for brought in (PROJECT / ".venv").iterdir():
            if brought.is_dir() and not (home / brought.name).exists():
                (home / brought.name).symlink_to(brought.resolve())
        command = self.python.with_name("contact-sync")
        command.write_text(f"#!{self.python}\nfrom worker.cli.main import main\nmain()\n", encoding="utf-8")
        command.chmod(0o755)

    def _prove(self) -> None:
        """Asks a process that is started as the tests start theirs which code it runs."""
        asked = subprocess.run(
            [str(self.python), "-c", _ASK],
            env={"PATH": self.environment["PATH"]},
            cwd="/",
            capture_output=True,
            text=True,
            check=True,
        )
        for line in asked.stdout.splitlines():
            if not Path(line).is_relative_to(self.root):
                raise WrongTree(f"a process of the copy would run {line}")
