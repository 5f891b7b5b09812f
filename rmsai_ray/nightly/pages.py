"""A report as Markdown and as one HTML file that needs no other: the same sections, tables and pictures."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass, field

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1f24; }
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
table { border-collapse: collapse; margin: .5rem 0; } img { max-width: 100%; }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; vertical-align: top; }
th, td { border-bottom: 1px solid #d8dee4; }
th { font-weight: 600; } td.number { text-align: right; font-variant-numeric: tabular-nums; }
.critical { color: #b3261e; font-weight: 600; } .warning { color: #9a6700; font-weight: 600; }
.quiet { color: #1a7f37; font-weight: 600; } .scroll { overflow-x: auto; }
"""
NUMBER_SIGNS = frozenset("0123456789.,+-−–% <>()to")


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells as people read them."""

    header: tuple[str, ...]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A PNG and what it shows."""

    name: str
    content: bytes
    caption: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """What comes below one heading, in this order."""

    title: str
    lines: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()


@dataclass(frozen=True, kw_only=True)
class Page:
    """A whole report."""

    title: str
    verdict: str
    tone: str
    """quiet, warning or critical."""
    sections: Sequence[Section] = field(default_factory=tuple)


def as_markdown(page: Page) -> str:
    """Pictures are named, and lie beside it."""
    lines = [f"# {page.title}", "", f"**{page.verdict}**", ""]
    for section in page.sections:
        lines += [f"## {section.title}", ""]
        for text in section.lines:
            lines += [text, ""]
        for table in section.tables:
            rows = [table.header, ["---"] * len(table.header), *table.rows]
            lines += ["| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in rows] + [""]
        for picture in section.pictures:
            lines += [f"![{picture.caption}]({picture.name})", ""]
    return "\n".join(lines)


def as_html(page: Page) -> str:
    """One file; everything that comes from data is escaped."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{html.escape(page.title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{html.escape(page.title)}</h1>",
        f'<p class="{page.tone}">{html.escape(page.verdict)}</p>',
    ]
    for section in page.sections:
        parts.append(f"<h2>{html.escape(section.title)}</h2>")
        parts += [f"<p>{html.escape(text)}</p>" for text in section.lines]
        parts += [_html_table(table) for table in section.tables]
        parts += [_html_picture(picture) for picture in section.pictures]
    return "\n".join([*parts, "</body></html>", ""])


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.header)
    body = "".join(f"<tr>{''.join(map(_html_cell, row))}</tr>" for row in table.rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _html_cell(cell: str) -> str:
    is_number = bool(cell) and NUMBER_SIGNS.issuperset(cell) and any(sign.isdigit() for sign in cell)
    kind = ' class="number"' if is_number else ""
    tone = {"critical": "critical", "warning": "warning", "drift": "critical", "failed": "critical"}.get(cell)
    text = f'<span class="{tone}">{html.escape(cell)}</span>' if tone else html.escape(cell)
    return f"<td{kind}>{text}</td>"


def _html_picture(picture: Picture) -> str:
    content = base64.b64encode(picture.content).decode()
    caption = html.escape(picture.caption)
    return f'<p><img alt="{caption}" src="data:image/png;base64,{content}"><br>{caption}</p>'
