# SPDX-License-Identifier: Apache-2.0
"""Hooks of the site: formulas become MathML, which browsers show without a script.

In the pages ``\\(a + b\\)`` is a formula in a line, and ``$$`` alone on a line begins and ends one of its own.
"""

from __future__ import annotations

import re
from typing import Any

from latex2mathml.converter import convert

FORMULA = re.compile(
    r"^\$\$\n(?P<block>.+?)\n\$\$$|\\\((?P<line>.+?)\\\)", re.DOTALL | re.MULTILINE
)

_formulas: dict[str, list[str]] = {}


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Takes the formulas out, so that Markdown does not read what is in them."""
    found = _formulas[page.file.src_uri] = []

    def take(match: re.Match[str]) -> str:
        if match["line"]:
            found.append(convert(match["line"]))
        else:
            found.append(_block(match["block"]))
        return f"FORMULA{len(found) - 1}X"

    return FORMULA.sub(take, markdown)


def on_page_content(html: str, *, page: Any, **_: Any) -> str:
    """Puts them back."""
    found = _formulas.pop(page.file.src_uri, [])
    return re.sub(r"FORMULA(\d+)X", lambda match: found[int(match[1])], html)


def _block(formula: str) -> str:
    markup = convert(formula, display="block")
    if "\\begin{matrix}" in formula:
        markup = markup.replace("<mtable", '<mtable class="matrix"')
    return f'<span class="formula">{markup}</span>'
