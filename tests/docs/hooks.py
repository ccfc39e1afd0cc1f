"""Lets pages link to files of the repository outside of `docs`, and fails the build for a link to none.

MkDocs runs it (`mkdocs.yml`). On the site such a link leads to the repository if its address is known, else its text
is shown without a link. Read in the repository itself, all links work as they stand.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import urlsplit

_LINK: Final = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\[\]]*\])+)\]\(([^)\s]+)\)")
_FENCE: Final = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)
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
