"""Makes docs/images/demo.svg: what `contact-sync demo` prints, from a real run. ``python -m tests.docs.recording``."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

PICTURE: Final = Path(__file__).parents[2] / "docs" / "images" / "demo.svg"
WIDTH: Final = 112
_FONT_FACE: Final = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)  # it would load a font from elsewhere


def main() -> None:
    """Runs the demo to its end, and draws what it said as a terminal shows it."""
    command = [str(Path(sys.executable).with_name("contact-sync")), "demo"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(Text("$ contact-sync demo\n", style="bold"), Text(ran.stdout.rstrip()), sep="")
    picture = _FONT_FACE.sub("", console.export_svg(title="contact-sync demo"))
    PICTURE.write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
