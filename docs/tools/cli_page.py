# SPDX-License-Identifier: Apache-2.0
"""Writes the page of the command line, docs/pages/cli.md, from the parsers themselves."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from vinpaint.cli import make_parser

PAGE = Path(__file__).parents[1] / "pages" / "cli.md"

BEGINNING = """# Command line

<!-- Written by docs/tools/cli_page.py: change vinpaint/cli.py instead. -->

```sh
vinpaint --help
vinpaint inpaint --help
```

Wrong input is one sentence on standard error and exit code 2, any other failure is 1, Ctrl-C 130; `vinpaint train` gives
75 when its time was up. [Error messages](troubleshooting.md) explains each sentence. `--debug` of every command shows
the traceback of an error.
"""


def page() -> str:
    """The page's text."""
    return BEGINNING + "".join(_commands(make_parser()))


def _commands(parser: argparse.ArgumentParser) -> Iterator[str]:
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    helps = {choice.dest: choice.help or "" for choice in commands._choices_actions}
    for name, command in commands.choices.items():
        places = [a for a in command._actions if not a.option_strings]
        yield f"\n## vinpaint {name}\n\n{_sentence(helps[name])}\n\n"
        required = [a for a in command._actions if a.option_strings and a.required]
        words = [f"{_longest(a)} {_value(a)}" for a in required]
        words += [_value(a) if a.required else f"[{_value(a)}]" for a in places]
        yield f"```text\n{' '.join(['vinpaint', name, *words, '[options]'])}\n```\n"
        for group in command._action_groups:
            shown = [a for a in group._group_actions if not isinstance(a, argparse._HelpAction)]
            if not shown:
                continue
            title = {"positional arguments": "What it takes", "options": "Options"}.get(
                group.title or "", (group.title or "")[:1].upper() + (group.title or "")[1:]
            )
            yield f"\n**{title}**\n\n| | |\n|---|---|\n"
            for action in shown:
                yield f"| {_names(action)} | {_cell(_help(action))} |\n"


def _names(action: argparse.Action) -> str:
    if not action.option_strings:
        return f"`{_value(action)}`"
    value = _value(action)
    return ", ".join(f"`{name}{' ' + value if value else ''}`" for name in action.option_strings)


def _longest(action: argparse.Action) -> str:
    return max(action.option_strings, key=len)


def _value(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    word = action.metavar or ("" if action.choices else action.dest.upper())
    if action.choices:
        word = "{" + ",".join(map(str, action.choices)) + "}"
    shown = word if isinstance(word, str) else " ".join(word)
    return f"{shown} …" if action.nargs == "+" else shown


def _help(action: argparse.Action) -> str:
    text = action.help or ""
    default = action.default
    if action.choices and default and "default" not in text:
        text += f" (default {default})"
    return text


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _cell(text: str) -> str:
    for sign in "<>*_{}":
        text = text.replace(sign, f"&#{ord(sign)};")
    return text.replace("|", "\\|")


def main(arguments: list[str]) -> int:
    """Write the page; with --check only say whether it is up to date."""
    if arguments == ["--check"]:
        return int(PAGE.read_text() != page())
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
