# SPDX-License-Identifier: Apache-2.0
"""What the README shows works as shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from examples import blocks, check_command, run_python, vinpaint_commands

from vinpaint.pretrained import SHIPPED

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("code", blocks(README, "python"))
def test_python_examples_run(code: str) -> None:
    run_python(code, "README.md")


def test_commands_parse() -> None:
    commands = vinpaint_commands(README)
    assert len(commands) >= 6
    for command in commands:
        check_command(command)


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
