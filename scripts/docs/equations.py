"""Equations of docstrings, which are plain text, as mathematics in HTML."""

from __future__ import annotations

from html import escape


def typeset(text: str) -> str:
    lines = "\n".join(escape(line) for line in text.splitlines())
    return f'<pre class="equation">{lines}</pre>'
