"""A hook of mkdocs: links from a page to files of the repository outside docs/.

Pages link such files as the forge needs it (``../../compose/README.md``). The site does not contain them and has no
address of the repository, so the hook turns such a link into its text and the path. A figure (SVG or PNG) is copied
into the site instead. ``tests/docs/test_links.py`` checks that the files exist.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
_FIGURES = ("bench/results",)
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((\.\./[^)#\s]*)(#[^)\s]*)?\)")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the repository's figures to the site, under their path in the repository."""
    for folder in _FIGURES:
        for figure in sorted((ROOT / folder).glob("*.svg")):
            path = figure.relative_to(ROOT).as_posix()
            files.append(File.generated(config, path, abs_src_path=str(figure)))
    return files


def on_page_markdown(markdown: str, *, page: Page, files: Files, **_: object) -> str:
    """Replace each link that leaves docs/."""
    folder = posixpath.dirname(page.file.src_uri)

    def replace(link: re.Match[str]) -> str:
        image, text, target, _ = link.groups()
        path = posixpath.normpath(posixpath.join("docs", folder, target))
        if path.startswith(("docs/", "../")) or path == "docs":
            return link[0]
        if image and files.get_file_from_path(path):
            return f"{image}[{text}]({posixpath.relpath(path, folder or '.')})"
        return f"`{path}`" if text.strip("`") == path else f"{text} (`{path}`)"

    return _LINK.sub(replace, markdown)
