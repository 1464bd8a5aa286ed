# SPDX-License-Identifier: Apache-2.0
"""Evaluation: how well holes are filled, in figures, by these networks and by other methods.

Example::

    from vinpaint.evaluation import evaluate, write_report

    results = evaluate("clips/", ["vinpaint", "telea"], output="report/", size=(432, 240))
    print(results.table("box"))
    write_report(results, "report/")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vinpaint.evaluation.methods import Method
    from vinpaint.evaluation.report import write_report
    from vinpaint.evaluation.results import Results
    from vinpaint.evaluation.run import evaluate

__all__ = ["Method", "Results", "evaluate", "write_report"]

_HOMES = {"Method": "methods", "Results": "results", "evaluate": "run", "write_report": "report"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: the scores alone need neither networks nor matplotlib."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
