"""Lets pages link to files of the repository outside of `docs`, and serves mermaid from the site itself.

MkDocs runs it (`mkdocs.yml`). On the site a link that leads out of `docs` goes to the repository if its address is
known, else its text is shown without a link; one to a missing file fails the build. Read in the repository itself, all
links work as they stand. The theme loads mermaid from elsewhere only if a page has not loaded it already.
"""

from __future__ import annotations

import logging
import os
import posixpath
import re
import shutil
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import urlsplit

_LINK: Final = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\[\]]*\])+)\]\(([^)\s]+)\)")
_FENCE: Final = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)
_MERMAID: Final = Path(".venv/docs/mermaid.min.js")  # `make docs` brings it
_SERVED: Final = "assets/mermaid.min.js"
_LOG: Final = logging.getLogger("mkdocs.hooks.repository")


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Returns the page with its links that lead out of `docs` resolved; a link to a missing file is a warning."""
    docs, source = Path(config.docs_dir), PurePosixPath(page.file.src_uri)
    root = docs.parent

    def resolved(link: re.Match[str]) -> str:
        text, target = link[1], urlsplit(link[2])
        if target.scheme or not target.path:
            return link[0]
        path = os.path.normpath(docs / source.parent / target.path)
        if Path(path).is_relative_to(docs):
            return link[0]  # MkDocs checks it itself
        if not Path(path).exists():
            _LOG.warning("%s links to %s, which is not in the repository", source, target.path)
        if not config.repo_url:
            return text
        return f"[{text}]({config.repo_url.rstrip('/')}/blob/main/{Path(path).relative_to(root).as_posix()})"

    parts = _FENCE.split(markdown)
    return "".join(part if i % 2 else _LINK.sub(resolved, part) for i, part in enumerate(parts))


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Returns the page; one with a diagram loads mermaid from the site, if it is here."""
    if 'class="mermaid"' not in output or not _mermaid(config).exists():
        return output
    script = f'<script src="{posixpath.relpath(_SERVED, page.url)}"></script>'
    return output.replace("</head>", f"{script}</head>", 1)


def on_post_build(config: Any) -> None:
    """Adds mermaid to the site, if it is here."""
    if _mermaid(config).exists():
        shutil.copyfile(_mermaid(config), Path(config.site_dir) / _SERVED)


def _mermaid(config: Any) -> Path:
    return Path(config.docs_dir).parent / _MERMAID
