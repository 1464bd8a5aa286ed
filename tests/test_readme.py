# SPDX-License-Identifier: Apache-2.0
"""What the README shows works as shown."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from vinpaint.cli import _parser
from vinpaint.pretrained import SHIPPED

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("code", _blocks("python"))
def test_python_examples_run(code: str) -> None:
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102


def test_commands_parse() -> None:
    lines = [line for block in _blocks("sh") for line in block.splitlines()]
    commands = [line for line in lines if line.startswith("vinpaint ")]
    assert len(commands) >= 6
    for command in commands:
        words, *_ = command.split(" > ")
        _parser().parse_args(shlex.split(words, comments=True)[1:])


def test_continuous_integration_runs_the_readmes_test_command() -> None:
    (command,) = re.findall(r"^(pip install '\.\[test\]' && pytest)", README, flags=re.MULTILINE)
    assert command in (ROOT / ".ci" / "run").read_text()


def test_nothing_is_left_to_fill_in() -> None:
    cards = [path.read_text() for path in (ROOT / "vinpaint" / "assets" / "weights").rglob("*.md")]
    assert len(cards) == len(SHIPPED) + 1  # and that of the network of the flow
    assert re.findall(r"@[A-Z]+@", README + "".join(cards)) == []


def test_files_named_in_the_readme_exist() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
