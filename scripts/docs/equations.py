"""Equations of docstrings, which are plain text, as mathematics in HTML: Greek letters, subscripts
and superscripts, variables in italics. Names like update_every are code, other words are text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape

GREEK = {
    "alpha": "α",
    "beta": "β",
    "gamma": "γ",
    "epsilon": "ε",
    "zeta": "ζ",
    "eta": "η",
    "theta": "θ",
    "lambda": "λ",
    "mu": "μ",
    "xi": "ξ",
    "pi": "π",
    "sigma": "σ",
    "tau": "τ",
    "psi": "ψ",
}
BIG = {"sum": "∑", "prod": "∏", "sqrt": "√"}
OPERATORS = {
    "<-": "←",
    "->": "→",
    ">=": "≥",
    "<=": "≤",
    "+-": "±",
    "...": "…",
    "*": "·",
    "~": "∼",
    "-": "−",
    "'": "′",
}
TOKEN = re.compile(
    r"(?P<word>(?<![\w^])sum(?= of )|(?<=\w )a(?= [a-z]{2})|(?<=[a-z])-(?=[a-z]{2})|(?<=r)'(?=s ))"
    r"|`(?P<code>[^`]+)`"
    r"|(?P<name>[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)*)"
    r"|(?P<script>[_^](?:\{[^}]*\}|\([^)]*\)|-?\w+))"
    r"|(?P<operator><-|->|>=|<=|\+-|\.\.\.|[*~'-])"
    r"|(?P<other>.)"
)
DIFFERENTIAL = re.compile(rf"d([A-Z]|[cmp]|score|{'|'.join(GREEK)})")


def typeset(text: str) -> str:
    """The HTML of an equation."""
    lines = "\n".join("".join(_pieces(line)) for line in text.splitlines())
    return f'<div class="equation">{lines}</div>'


def _pieces(text: str) -> Iterator[str]:
    for token in TOKEN.finditer(text):
        if token["name"]:
            yield _name(token["name"])
        elif token["code"]:
            yield f"<code>{escape(token['code'])}</code>"
        elif token["script"]:
            yield _script(token["script"])
        elif token["operator"]:
            yield OPERATORS[token["operator"]]
        else:
            yield escape(token[0], quote=False)


def _script(token: str) -> str:
    """`_{t-1}`, `^2` and `^(t/T)`, without the braces or parentheses."""
    tag = "sub" if token[0] == "_" else "sup"
    inside = re.sub(r"^\{(.*)\}$|^\((.*)\)$", r"\1\2", token[1:])
    return f"<{tag}>{''.join(_pieces(inside))}</{tag}>"


def _name(name: str) -> str:
    """theta_0, W_ij and T_end have a subscript; update_every and fan_in are names of code."""
    base, _, below = name.partition("_")
    if not below:
        return _base(base)
    if len(base) > 1 and base not in GREEK and (len(below) > 1 or "_" in below):
        return f"<code>{name}</code>"
    inside = f"<i>{below}</i>" if below.isalpha() and len(below) <= 2 else _base(below)
    return f"{_base(base)}<sub>{inside}</sub>"


def _base(name: str) -> str:
    if name in GREEK:
        return f"<i>{GREEK[name]}</i>"
    if name in BIG:
        return BIG[name]
    if len(name) == 1 and name.isalpha():
        return f"<i>{name}</i>"
    if re.fullmatch(r"[a-z]\d", name):
        return f"<i>{name[0]}</i><sub>{name[1]}</sub>"
    if differential := DIFFERENTIAL.fullmatch(name):
        return f"<i>d</i>{_base(differential[1])}"
    return name
