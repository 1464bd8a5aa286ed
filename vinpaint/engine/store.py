# SPDX-License-Identifier: Apache-2.0
"""Engine files: what an engine was built for, and that it was built here.

An engine file is code: loading a foreign one can run anything. So a file carries a digest that is keyed to this
installation's secret, and one whose digest does not match is refused and never handed to a runtime.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from vinpaint.errors import InputError

MAGIC = b"vinpaint engine 1\n"

SECRET_BYTES = 32


@dataclass(frozen=True)
class Spec:
    """Everything that an engine depends on.

    Attributes:
        backend: the runtime's name.
        library: its version.
        target: what it was built for: a card's compute capability, or a processor.
        weights: digest of the networks.
        graph: version of the graph; another one is built anew.
        frames: of a clip, those of the context too; of a stream 1.
        context: frames before and after those that are wanted.
        height: of the frames, in pixels.
        width: of the frames, in pixels.
        precision: what the networks compute in.
        lookahead: frames that a stream's frame waits for; ``None``: the engine is for clips.
    """

    backend: str
    library: str
    target: str
    weights: str
    graph: int
    frames: int
    context: int
    height: int
    width: int
    precision: str
    lookahead: int | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The graph, as :func:`vinpaint.engine.export_program` is asked for it."""
        names = ("height", "width", "context", "precision", "lookahead")
        frames = self.frames if self.lookahead is None else None
        return {"frames": frames, **{name: getattr(self, name) for name in names}}

    @property
    def key(self) -> str:
        """Names the engine in the cache."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:32]


@dataclass
class Timings:
    """What a builder measured of its choices: read by a build, and replaced by what it has then."""

    content: bytes = b""


class Store:
    """A folder of engines that only its owner can read.

    Args:
        folder: ``None``: ``vinpaint/engines`` in the user's cache folder (``XDG_CACHE_HOME``).
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self.folder = Path(folder) if folder is not None else cache / "vinpaint" / "engines"

    def path(self, spec: Spec) -> Path:
        """Where the engine is kept, or would be."""
        return self.folder / f"{spec.backend}-{spec.key}.engine"

    def write(self, spec: Spec, payload: bytes, path: Path | None = None) -> Path:
        """Keep an engine under ``path``, by default in the folder; whole or not at all."""
        path = path or self.path(spec)
        self._make_folder()
        self._make_secret()
        header = json.dumps(asdict(spec), sort_keys=True).encode() + b"\n"
        digest = self._digest(header, payload)
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(path, MAGIC, header, digest, b"\n", payload)
        return path

    def read(self, path: Path, expected: Spec | None = None) -> tuple[Spec, bytes]:
        """What a file holds.

        Args:
            path: the file.
            expected: what it has to be for; ``None``: anything that was built here.

        Raises:
            InputError: it is missing, cut off, changed, not from this installation, or of something else.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"engine: {path} cannot be read: {error.strerror}") from error
        if not content.startswith(MAGIC):
            raise InputError(f"engine: {path} is no engine file of this version of vinpaint")
        header, _, rest = content[len(MAGIC) :].partition(b"\n")
        digest, _, payload = rest.partition(b"\n")
        if not hmac.compare_digest(digest, self._digest(header + b"\n", payload)):
            raise InputError(
                f"engine: {path} was cut off or changed, or was not built by this installation; engines are "
                "code, so it is not loaded: compile it here"
            )
        spec = Spec(**json.loads(header))
        if expected is not None and spec != expected:
            name = next(
                f.name for f in fields(Spec) if getattr(spec, f.name) != getattr(expected, f.name)
            )
            raise InputError(
                f"engine: {path} is of another {name}: expected {getattr(expected, name)}, got "
                f"{getattr(spec, name)}; compile it again"
            )
        return spec, payload

    def timings(self, spec: Spec) -> bytes:
        """What earlier builds measured for this runtime and target: nothing if there were none or it was changed."""
        try:
            digest, _, content = self._timings_path(spec).read_bytes().partition(b"\n")
            sound = hmac.compare_digest(digest, self._digest(b"timings\n", content))
        except (OSError, InputError):
            return b""
        return content if sound else b""

    def keep_timings(self, spec: Spec, content: bytes) -> None:
        """For the next build."""
        self._make_folder()
        self._make_secret()
        _write_whole(self._timings_path(spec), self._digest(b"timings\n", content), b"\n", content)

    def _timings_path(self, spec: Spec) -> Path:
        facts = json.dumps([spec.backend, spec.library, spec.target]).encode()
        return self.folder / f"{spec.backend}-{hashlib.sha256(facts).hexdigest()[:16]}.timings"

    @contextmanager
    def building(self, spec: Spec) -> Iterator[None]:
        """One process builds an engine, others that want the same wait for it."""
        self._make_folder()
        lock = self.path(spec).with_suffix(".lock")
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _make_folder(self) -> None:
        if not self.folder.exists():
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self.folder.mkdir(exist_ok=True, mode=0o700)
        if self.folder.stat().st_mode & 0o022:
            raise InputError(
                f"engine: {self.folder} can be written by others, who could put code there; expected a folder "
                "of one's own (chmod go-w)"
            )

    def _digest(self, header: bytes, payload: bytes) -> bytes:
        return hmac.new(self._secret(), header + payload, hashlib.sha256).hexdigest().encode()

    def _make_secret(self) -> None:
        path = self.folder / "secret"
        if path.exists():
            return
        with NamedTemporaryFile(dir=self.folder, prefix=".", delete=False) as file:
            file.write(secrets.token_bytes(SECRET_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(file.name, path)  # the first of several processes wins
        except FileExistsError:
            pass
        finally:
            Path(file.name).unlink()

    def _secret(self) -> bytes:
        path = self.folder / "secret"
        try:
            facts = path.lstat()
            secret = path.read_bytes()
        except OSError as error:
            raise InputError(
                f"engine: {path} cannot be read ({error.strerror}), so that no engine is known to be of this "
                "installation; compile it here"
            ) from error
        sound = stat.S_ISREG(facts.st_mode) and facts.st_uid == os.geteuid()
        if not sound or facts.st_mode & 0o077 or len(secret) != SECRET_BYTES:
            raise InputError(
                f"engine: {path} is not a secret that this user alone can read; remove it and compile again"
            )
        return secret


def _write_whole(path: Path, *parts: bytes) -> None:
    """A file that is whole or not there."""
    with NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
        try:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
