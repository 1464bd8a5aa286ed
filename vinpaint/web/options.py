# SPDX-License-Identifier: Apache-2.0
"""The options of ``vinpaint inpaint`` on the page: names, choices, defaults and help are the command line's."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from vinpaint.cli import command_parser
from vinpaint.errors import InputError
from vinpaint.pretrained import SHIPPED

OF_THE_PAGE = ("help", "debug", "input", "output", "mask", "box", "preview", "compare", "overwrite")
"""What the page asks for in ways of its own, or decides itself."""

OF_THE_SERVER = ("device", "backend")
"""What whoever starts the server decides."""


class Options:
    """A control for each option.

    Attributes:
        controls: in the order of the command line's help.
    """

    def __init__(self, given: Mapping[str, Any] = {}) -> None:
        """Put the controls where Gradio's context is. ``given``: what the server was started with."""
        self._given = {name: value for name, value in given.items() if value is not None}
        own = self._given.get("weights")
        # By name: where they lie is nobody's business.
        self._weights: dict[str, str] = {name: name for name in SHIPPED}
        if own is not None and own not in SHIPPED:
            self._weights[f"{Path(own).resolve().name} (the server's)"] = own
        self._actions = [
            action
            for action in command_parser("inpaint")._actions
            if action.dest not in OF_THE_PAGE + OF_THE_SERVER
        ]
        self.controls = [self._control(action) for action in self._actions]

    def control(self, name: str) -> gr.components.Component:
        """The control of one option, such as ``allow_truncated``."""
        return self.controls[[action.dest for action in self._actions].index(name)]

    def read(self, values: Sequence[Any]) -> dict[str, Any]:
        """Options by name, from the values of all controls.

        Raises:
            InputError: a value that the command line would refuse.
        """
        return {
            action.dest: self._value(action, value)
            for action, value in zip(self._actions, values, strict=True)
        }

    def flags(self, values: Sequence[Any]) -> list[str]:
        """What the command line takes for the same."""
        flags = []
        for action, value in zip(self._actions, values, strict=True):
            parsed = self._value(action, value)
            default = SHIPPED[0] if action.dest == "weights" else action.default
            if parsed != default and action.dest == "weights":
                flags += [_name(action), Path(parsed).resolve().name]
            elif parsed != default:
                flags += [_name(action)] if action.nargs == 0 else [_name(action), f"{parsed}"]
        return flags

    def _control(self, action: argparse.Action) -> gr.components.Component:
        shown: dict[str, Any] = {
            "label": _name(action),
            "info": action.help,
            "elem_id": f"option-{action.dest}",
        }
        if action.nargs == 0:
            return gr.Checkbox(value=False, **shown)
        if action.dest == "weights":
            return gr.Dropdown(choices=[*self._weights], value=self._first_weights(), **shown)
        if action.choices is not None:
            first = self._given.get(action.dest, action.default)
            return gr.Dropdown(choices=[*action.choices], value=first, **shown)
        # A number without a default would become 0 as soon as it is shown.
        if action.type in (int, float) and action.default is not None:
            return gr.Number(
                value=action.default, precision=0 if action.type is int else None, **shown
            )
        return gr.Textbox(value=action.default or "", **shown)

    def _first_weights(self) -> str:
        first = self._given.get("weights", SHIPPED[0])
        return next(name for name, value in self._weights.items() if value == first)

    def _value(self, action: argparse.Action, value: Any) -> Any:
        if action.nargs == 0:
            return bool(value)
        if value is None or value == "":
            return action.default
        if action.dest == "weights":
            return self._weights[_chosen(action, value, [*self._weights])]
        if action.choices is not None:
            return _chosen(action, value, [*action.choices])
        try:
            return action.type(value) if callable(action.type) else str(value)
        except (TypeError, ValueError):
            raise InputError(f"{_name(action)}: expected a number, got {value!r}") from None


def _name(action: argparse.Action) -> str:
    return action.option_strings[-1]


def _chosen(action: argparse.Action, value: Any, choices: Sequence[str]) -> Any:
    """The page's choices alone: a visitor may send anything, such as a path on the server."""
    if value not in choices:
        raise InputError(f"{_name(action)}: expected one of {', '.join(choices)}, got {value!r}")
    return value
