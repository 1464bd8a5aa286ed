# SPDX-License-Identifier: Apache-2.0
"""Output that appears under its name only when it is whole."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vinpaint.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType


class AtomicOutput:
    """A file or folder written under a hidden name beside its own, then renamed.

    A context manager that gives the hidden path. Left without an exception it renames, left
    with one (Ctrl-C included) it removes what was written.
    """

    def __init__(
        self,
        path: str | Path,
        kind: Literal["file", "folder"],
        *,
        overwrite: bool = False,
        inputs: Sequence[Path] = (),
        argument: str = "--output",
    ) -> None:
        """``inputs`` are files and folders that must not be written over.

        Raises InputError: the output exists and ``overwrite`` is not set, it is an input, its
        folder is missing, it exists and is something else than what would be written.
        """
        self.path = Path(path)
        self._kind = kind
        self._overwrite = overwrite
        self._argument = argument
        self._final = final = self.path.resolve()  # a link is followed, not replaced
        for source in inputs:
            read = source.resolve()
            if final == read or read in final.parents or final in read.parents:
                raise InputError(
                    f"{argument}: {self.path} is or lies within {source}, which is read from; "
                    "expected another place"
                )
        if not self.path.parent.is_dir():
            raise InputError(
                f"{argument}: the folder {self.path.parent} does not exist; create it first"
            )
        self._check_free()
        self.hidden = final.with_name(f".{final.stem}.{secrets.token_hex(4)}{final.suffix}")

    def _check_free(self) -> None:
        if not os.path.lexists(self.path):
            return
        if not self._overwrite:
            raise InputError(
                f"{self._argument}: {self.path} exists; pass --overwrite to replace it, or "
                "choose another name"
            )
        if self.path.is_dir() != (self._kind == "folder"):
            raise InputError(
                f"{self._argument}: {self.path} is {'a folder' if self.path.is_dir() else 'a file'}"
                f", but a {self._kind} would be written; choose another name"
            )
        if self._kind == "folder":
            other = next((p for p in self.path.iterdir() if p.suffix.lower() != ".png"), None)
            if other is not None:
                raise InputError(
                    f"{self._argument}: the folder {self.path} holds more than PNG frames "
                    f"({other.name}), so it is not replaced; choose another name"
                )

    def __enter__(self) -> Path:
        if self._kind == "folder":
            self.hidden.mkdir()
        return self.hidden

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._rename()
        finally:
            remove(self.hidden)

    def _rename(self) -> None:
        self._check_free()
        if self._kind == "folder" and self._final.exists():
            old = self.hidden.with_name(self.hidden.name + ".old")
            self._final.rename(old)
            self.hidden.rename(self._final)
            remove(old)
        else:
            self.hidden.replace(self._final)


def check_distinct(outputs: Mapping[str, str | Path | None]) -> None:
    """Raise InputError if two outputs, by argument, are one file or lie in one another."""
    seen: dict[Path, str] = {}
    for argument, path in outputs.items():
        if path is None:
            continue
        final = Path(path).resolve()
        for other, name in seen.items():
            if final == other or final in other.parents or other in final.parents:
                raise InputError(
                    f"{argument}: {path} would be written over {name}; choose another name"
                )
        seen[final] = argument


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
