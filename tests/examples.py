# SPDX-License-Identifier: Apache-2.0
"""The examples in Markdown files: fenced blocks, whose Python is run and whose commands are parsed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from vinpaint.cli import make_parser


def blocks(markdown: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", markdown, flags=re.DOTALL | re.MULTILINE)


def run_python(code: str, name: str) -> None:
    """As a program of its own."""
    exec(compile(code, name, "exec"), {})  # noqa: S102


def vinpaint_commands(markdown: str) -> list[list[str]]:
    """The arguments of every call of ``vinpaint`` in the shell's blocks, in pipes and lists too."""
    lines = (line for block in blocks(markdown, "sh") for line in block.splitlines())
    return [words[1:] for line in lines for words in _simple(line) if words[0] == "vinpaint"]


def _simple(line: str) -> Iterator[list[str]]:
    """The simple commands of a line, without what they are redirected to."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words: list[str] = []
    skipped = False
    for token in lexer:
        if set(token) <= set("|&;<>"):
            skipped = token in ("<", ">", ">>")
            if not skipped and words:
                yield words
                words = []
        elif not skipped:
            words.append(token)
        else:
            skipped = False
    if words:
        yield words


def check_command(arguments: list[str]) -> None:
    """Parse a call of ``vinpaint``; an AssertionError if its options are none."""
    try:
        make_parser().parse_args(arguments)
    except SystemExit as stopped:
        assert stopped.code == 0, f"vinpaint {shlex.join(arguments)} is refused"  # noqa: PT017
