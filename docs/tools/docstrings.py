# SPDX-License-Identifier: Apache-2.0
"""Docstrings for the site: what is written for Sphinx there (roles, ``::``) as Markdown, for mkdocstrings."""

from __future__ import annotations

import re
import textwrap
from typing import Any

from griffe import Extension, Function, Object

ROLE = re.compile(r":(?:func|class|meth|mod|data|attr):`(~?)([\w.]+)`")
RETURNS = re.compile(r"^Returns:\n {4}", re.MULTILINE)
LITERAL = re.compile(r"^(?P<said>.*?)::\n\n(?P<code>(?:(?: {4}.*)?\n?)+)", re.MULTILINE)


def as_markdown(text: str) -> str:
    """A docstring with links in place of roles, and fenced code in place of literal blocks."""
    return LITERAL.sub(_fenced, ROLE.sub(_link, text)).replace("``", "`")


def _link(match: re.Match[str]) -> str:
    name = match[2]
    if not name.startswith("vinpaint."):
        return f"`{name}`"
    shown = name.rpartition(".")[2]
    return f'<autoref identifier="{name}" optional>`{shown}`</autoref>'


def _fenced(match: re.Match[str]) -> str:
    code = textwrap.dedent(match["code"]).strip("\n")
    return f"{match['said']}:\n\n~~~~python\n{code}\n~~~~\n\n"


class Docstrings(Extension):
    """Called by griffe for everything that it reads."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite the docstring in place."""
        if obj.docstring is None:
            return
        text = as_markdown(obj.docstring.value)
        if isinstance(obj, Function) and obj.returns is not None:
            # Before the first colon stands a type for mkdocstrings, not the beginning of a sentence.
            text = RETURNS.sub(lambda match: f"{match[0]}{obj.returns}: ", text)
        obj.docstring.value = text
