# SPDX-License-Identifier: Apache-2.0
"""Who fills for the page: networks that stay loaded, in a process of their own."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vinpaint.errors import InputWarning
from vinpaint.files import Report, inpaint_video
from vinpaint.inpainting import Inpainter
from vinpaint.processes import ChildProcess, Tell
from vinpaint.web.jobs import Told

MakeInpainter = Callable[..., Inpainter]
"""Called with ``weights``, ``precision`` and ``propagate``."""

Networks = Mapping[str, Any]
"""What that is called with."""

Pictures = NDArray[np.uint8]

FILLING = "Filling"
"""What is told while a video is filled. Frames come in chunks: none are done until the first chunk is."""

KEPT_INPAINTERS = 3
"""Networks held in memory, of different options."""


class Filler(Protocol):
    """Who fills, here or elsewhere. What ``told`` raises ends the work; the rest is raised as it comes."""

    def load(self, told: Told, networks: Networks) -> None:
        """Have networks at hand. Raises what making them raises."""

    def pictures(
        self, told: Told, networks: Networks, frames: Pictures, mask: Pictures
    ) -> Pictures:
        """What :class:`vinpaint.Inpainter` makes of uint8 frames (F, H, W, 3) and a mask (F, H, W). Raises what that does."""

    def video(
        self, told: Told, networks: Networks, options: Mapping[str, Any]
    ) -> tuple[Report, list[str]]:
        """What :func:`vinpaint.inpaint_video` does with options, and what it warns of. Raises what that does."""


class LocalFiller:
    """Fills in the process that calls.

    Args:
        make_inpainter: gives the networks.
    """

    def __init__(self, make_inpainter: MakeInpainter) -> None:
        self._make_inpainter = make_inpainter
        self._inpainters: dict[frozenset[tuple[str, Any]], Inpainter] = {}

    def load(self, told: Told, networks: Networks) -> None:
        """See :class:`Filler`."""
        self._inpainter(told, networks)

    def pictures(
        self, told: Told, networks: Networks, frames: Pictures, mask: Pictures
    ) -> Pictures:
        """See :class:`Filler`."""
        inpainter = self._inpainter(told, networks)
        told("Filling some frames", 0, 0)
        return inpainter(frames, mask)

    def video(
        self, told: Told, networks: Networks, options: Mapping[str, Any]
    ) -> tuple[Report, list[str]]:
        """See :class:`Filler`."""
        inpainter = self._inpainter(told, networks)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", InputWarning)
            report = inpaint_video(**options, inpainter=inpainter, progress=partial(told, FILLING))
        said: list[str] = []
        for warning in caught:
            if issubclass(warning.category, InputWarning):
                said.append(str(warning.message))
            else:
                warnings.warn_explicit(
                    warning.message, warning.category, warning.filename, warning.lineno
                )
        return report, list(dict.fromkeys(said))

    def _inpainter(self, told: Told, networks: Networks) -> Inpainter:
        key = frozenset(networks.items())
        found = self._inpainters.pop(key, None)
        if found is None:
            told("Loading the networks", 0, 0)
            found = self._make_inpainter(**networks)
        self._inpainters[key] = found  # the last used last
        for oldest in list(self._inpainters)[:-KEPT_INPAINTERS]:
            del self._inpainters[oldest]
        return found


class Worker:
    """A filler in a process of its own, which threads of this one do not slow. One thread at a time may use it.

    Besides, its methods raise :class:`vinpaint.processes.ProcessEndedError` if that process has ended.

    Args:
        make_inpainter: gives the networks, there; can be pickled.
    """

    def __init__(self, make_inpainter: MakeInpainter) -> None:
        self._process = ChildProcess(_Requests, make_inpainter, name="the process that fills")

    def start(self) -> None:
        """Begin to start the process. Raises what :meth:`vinpaint.processes.ChildProcess.start` does."""
        self._process.start()

    def close(self) -> None:
        """End the process, whatever it does."""
        self._process.close()

    def load(self, told: Told, networks: Networks) -> None:
        """See :class:`Filler`."""
        self._ask("load", told, networks)

    def pictures(
        self, told: Told, networks: Networks, frames: Pictures, mask: Pictures
    ) -> Pictures:
        """See :class:`Filler`."""
        filled: Pictures = self._ask("pictures", told, networks, frames, mask)
        return filled

    def video(
        self, told: Told, networks: Networks, options: Mapping[str, Any]
    ) -> tuple[Report, list[str]]:
        """See :class:`Filler`."""
        filled: tuple[Report, list[str]] = self._ask("video", told, networks, options)
        return filled

    def _ask(self, method: str, told: Told, *given: Any) -> Any:
        heard = ("", 0, 0)

        def listen(what: tuple[str, int, int] | None) -> None:
            nonlocal heard
            heard = what or heard
            told(*heard)

        return self._process.ask((method, given), listen)


class _Requests:
    """A local filler, there."""

    def __init__(self, make_inpainter: MakeInpainter) -> None:
        self._filler = LocalFiller(make_inpainter)

    def __call__(self, request: tuple[str, tuple[Any, ...]], tell: Tell) -> Any:
        method, given = request
        return getattr(self._filler, method)(lambda *what: tell(what), *given)
