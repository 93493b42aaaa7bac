"""The base of every HTML report: one file that needs nothing else, and no network."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["figure_png", "image_tag", "page", "table"]


def page(title: str, *parts: str) -> str:
    """A whole page: `title` is plain text, also its first heading; `parts` are HTML."""
    name = html.escape(title)
    return "\n".join([_HEAD.replace("TITLE", name), *parts, "</body></html>", ""])


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of plain texts."""
    lines = [_cells("th", head), *(_cells("td", row) for row in rows)]
    return f"<div class=table><table>{''.join(lines)}</table></div>"


def image_tag(png: bytes, alt: str) -> str:
    """A PNG inside the page; `alt` is plain text."""
    data = base64.b64encode(png).decode()
    return f'<img alt="{html.escape(alt, quote=True)}" src="data:image/png;base64,{data}">'


def figure_png(figure: Any, dpi: int = 120) -> bytes:
    """A matplotlib figure as the bytes of a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def _cells(kind: str, texts: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{kind}>{html.escape(text)}</{kind}>" for text in texts) + "</tr>"


_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>TITLE</title>
<meta name="viewport" content="width=device-width">
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem;
       color: #1d2733; background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse; margin: 1rem 0 }
td, th { padding: .3rem 1rem .3rem 0; text-align: left; border-bottom: 1px solid #ddd }
.table { overflow-x: auto } img { max-width: 100%; height: auto }
.verdict { font-size: 1.15rem; font-weight: 600 }
details { margin: 1rem 0 }
</style></head><body>
<h1>TITLE</h1>"""
