"""One HTML page with tables and figures in it, which needs no other file and no network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Section", "html_page"]

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1150px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; font-size: 13px; display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid #ddd; padding: 4px 10px; text-align: left; vertical-align: top; }
thead th { border-bottom: 2px solid #333; } img { max-width: 100%; height: auto; } p { max-width: 62rem; }
"""


@dataclass(frozen=True)
class Section:
    """A part of a page: its heading, what is said of it, figures, each the bytes of a PNG with a description, and a
    table, whose first row is the head."""

    heading: str
    text: str
    table: Sequence[Sequence[str]] = ()
    figures: Sequence[tuple[str, bytes]] = ()


def html_page(title: str, sections: Sequence[Section]) -> str:
    """The page as text; all that is given is taken as text, not as HTML."""
    numbered = list(enumerate(sections, start=1))
    contents = "".join(f'<li><a href="#s{number}">{escape(part.heading)}</a></li>' for number, part in numbered)
    body = "".join(_section(number, part) for number, part in numbered)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>{escape(title)}</h1><ul>{contents}</ul>{body}</body></html>\n"
    )


def _section(number: int, part: Section) -> str:
    figures = "".join(
        f'<p><img alt="{escape(name)}" src="data:image/png;base64,{base64.b64encode(png).decode()}"></p>\n'
        for name, png in part.figures
    )
    return (
        f'\n<h2 id="s{number}">{escape(part.heading)}</h2>\n<p>{escape(part.text)}</p>\n{figures}{_table(part.table)}'
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    head, *body = (
        "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row)
        for tag, row in zip(["th"] + ["td"] * (len(rows) - 1), rows, strict=True)
    )
    lines = "".join(f"<tr>{row}</tr>\n" for row in body)
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{lines}</tbody></table>\n"
