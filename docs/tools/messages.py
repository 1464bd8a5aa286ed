# SPDX-License-Identifier: Apache-2.0
"""Holds the page of error messages against the sources: each message has its line there, and no other has.

``python docs/tools/messages.py`` says what is missing or stale; ``--list`` shows every message and where it is from.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "pages" / "troubleshooting.md"

GAP = "…"
"""Stands in a message for what is known only when it is said."""

CLASSES = re.compile(r"(Error|Warning)$")

NOT_SHOWN = {"AttributeError", "AssertionError", "IndexError", "UnpicklingError", "StopIteration"}
"""Of Python's own protocols; whoever sees one is at the code."""


@dataclass(frozen=True, order=True)
class Message:
    """A message that the sources can raise, with GAP for what varies, and where."""

    text: str
    place: str


def collect(folder: Path = ROOT / "vinpaint") -> list[Message]:
    """Every message of an exception or warning made in a package."""
    trees = {path: ast.parse(path.read_text()) for path in sorted(folder.rglob("*.py"))}
    constants = {
        target.id: node.value
        for tree in trees.values()
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found = []
    for path, tree in trees.items():
        for text, line in _of_tree(tree, constants):
            found.append(Message(text, f"{path.relative_to(folder.parent)}:{line}"))
    return sorted(set(found))


def _of_tree(tree: ast.Module, constants: dict[str, ast.expr]) -> Iterator[tuple[str, int]]:
    for scope in ast.walk(tree):
        if not isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef | ast.Module):
            continue
        named: dict[str, list[ast.expr]] = {}
        for node in _inside(scope):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        named.setdefault(target.id, []).append(node.value)
        for node in _inside(scope):
            if not isinstance(node, ast.Call):
                continue
            for value in _message_of(node):
                values = [value]
                if isinstance(value, ast.Name):
                    values = named.get(value.id) or [constants.get(value.id, value)]
                for one in values:
                    text = " ".join(_template(one).split())
                    if re.search(r"\w", text.replace(GAP, "")):
                        yield text, node.lineno


def _inside(scope: ast.AST) -> Iterator[ast.AST]:
    """What a function holds, without the functions in it."""
    for child in ast.iter_child_nodes(scope):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
            yield from _inside(child)


def _message_of(call: ast.Call) -> list[ast.expr]:
    """The argument that is a message, of an exception or a warning that is made."""
    name = _last_name(call.func)
    if name == "warn" and len(call.args) > 1 and CLASSES.search(_last_name(call.args[1])):
        return call.args[:1]
    if not CLASSES.search(name) or name in NOT_SHOWN or not name[:1].isupper():
        return []
    # An OSError's first argument is a number.
    return call.args[1:2] if name == "OSError" and len(call.args) > 1 else call.args[:1]


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _template(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_template, node.values))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _template(node.left) + _template(node.right)
    return GAP


def documented(page: str) -> list[str]:
    """The messages that the page has: its terms, in code."""
    return [match[2].strip() for match in re.finditer(r"^(`+) ?(.+?) ?\1$", page, re.MULTILINE)]


def differences(messages: list[Message], page: str) -> tuple[list[Message], list[str]]:
    """Messages without a line on the page, and lines of messages that are not raised any more."""
    lines = documented(page)
    texts = {message.text for message in messages}
    missing = [message for message in messages if message.text not in lines]
    return missing, [line for line in lines if line not in texts]


def main(arguments: list[str]) -> int:
    """Show the list or the differences; the exit code says whether there are any."""
    messages = collect()
    if arguments == ["--list"]:
        for message in sorted(messages, key=lambda m: (m.place.split(":")[0], m.text)):
            print(f"{message.place}\t{message.text}")
        return 0
    missing, stale = differences(messages, PAGE.read_text())
    for message in missing:
        print(f"missing in {PAGE.name}: {message.text} ({message.place})")
    for line in stale:
        print(f"nobody says: {line}")
    return int(bool(missing or stale))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
