"""The common parts of the plots: the style for light and dark pages, and texts."""

from __future__ import annotations

from html import escape
from typing import Final

__all__ = ["STYLE", "page", "text"]

STYLE: Final = (
    "text{font:13px system-ui,sans-serif;fill:#1d242b}.head{font-size:17px;font-weight:600}.case{font-weight:600}"
    ".small{font-size:11px;fill:#5b6570}.grid{stroke:#d9dee3}.range{stroke:#1d242b;stroke-width:1.5}.paper{fill:#fff}"
    "@media(prefers-color-scheme:dark){text{fill:#e4e8ec}.small{fill:#9aa4ae}.grid{stroke:#343b43}"
    ".range{stroke:#e4e8ec}.paper{fill:#14181d}}"
)


def text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> str:
    """Return a text element. STYLE has its classes."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(content)}</text>'


def page(width: float, height: float, title: str, parts: list[str]) -> str:
    """Return a complete SVG document."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style>",
            '<rect class="paper" width="100%" height="100%"/>',
            *parts,
            "</svg>\n",
        ]
    )
