# SPDX-License-Identifier: Apache-2.0
"""The server behind the page: where it listens, who may come in, what it takes, and what it deletes."""

from __future__ import annotations

import errno
import functools
import getpass
import ipaddress
import logging
import os
import secrets
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from vinpaint.errors import InputError
from vinpaint.web.jobs import Jobs
from vinpaint.web.project import Limits
from vinpaint.web.wording import explain
from vinpaint.web.worker import MakeInpainter, Networks, Worker
from vinpaint.web.workspaces import Workspaces

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse

PASSWORD_VARIABLE = "VINPAINT_WEB_PASSWORD"

UPLOAD_SECONDS = 1800.0
"""How long what Gradio has put away, uploads and pictures it shows, lies there. Projects keep links of their own."""

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 2.0


@dataclass(frozen=True)
class ServerOptions:
    """How the page is served.

    Attributes:
        host: address to listen at; other machines reach it only if this is none of the loopback's, which needs a
            password.
        port: 0: any that is free.
        password: that visitors have to give; ``None``: none.
        folder: for everybody's files, on a disk with room for them; ``None``: the system's for temporary files.
        megabytes: of an upload.
        limits: of a clip.
        queue: videos that may wait to be filled.
        visitors: pages that may be open at once.
        keep: minutes without any action until the files of an open page are deleted.
        networks: what the page's ``weights``, ``precision`` and ``propagate`` are at first.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    password: str | None = field(default=None, repr=False)
    folder: Path | None = None
    megabytes: int = 500
    limits: Limits = field(default_factory=Limits)
    queue: int = 30
    visitors: int = 60
    keep: float = 60.0
    networks: Networks = field(default_factory=dict)


def find_password(host: str) -> str | None:
    """The password for a server at an address: none on the loopback, unless the environment has one.

    Raises:
        InputError: other machines can reach the address and there is no password: neither in the environment nor, as
            this is no terminal, by asking for it.
    """
    given = os.environ.get(PASSWORD_VARIABLE)
    if given or _is_loopback(host):
        return given or None
    if sys.stdin.isatty():
        given = getpass.getpass(f"Other machines can reach {host}. A password for the page: ")
    if not given:
        raise InputError(
            f"--host: {host} can be reached by other machines, so the page needs a password; put it into the environment "
            f"variable {PASSWORD_VARIABLE}"
        )
    return given


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def serve(options: ServerOptions, make_inpainter: MakeInpainter) -> Iterator[str]:
    """Serve the page while the block runs; gives its address. All files are deleted in the end.

    Args:
        options: see there.
        make_inpainter: called as a visitor chose, by other processes, for which it is pickled. A script that calls this
            has its own work under ``if __name__ == "__main__":``.

    Raises:
        InputError: Gradio is not installed, the port is taken, the folder is missing, or the networks cannot be made.
        RuntimeError: the process that makes them has ended.
    """
    if options.folder is not None and not options.folder.is_dir():
        raise InputError(f"--folder: no such folder: {options.folder}")
    port = _free_port(options.host, options.port)
    with ExitStack() as ending:
        root = Path(tempfile.mkdtemp(prefix="vinpaint-web-", dir=options.folder)).resolve()
        ending.callback(shutil.rmtree, root, ignore_errors=True)
        filling, looking = (ending.enter_context(closing(Worker(make_inpainter))) for _ in range(2))
        filling.start()  # it starts while Gradio does
        # Gradio reads these when it is imported. What it is given then lies in one folder, which is served from and
        # deleted.
        os.environ.update(GRADIO_TEMP_DIR=str(root), GRADIO_ANALYTICS_ENABLED="False")
        try:
            import gradio as gr
        except ImportError as error:
            raise InputError(
                f"vinpaint web needs Gradio: pip install 'vinpaint[web]' ({error})"
            ) from error
        from vinpaint.web.page import STYLE, Fillers, Page, Queues

        workspaces = Workspaces(
            root, options.limits, keep=60 * options.keep, count=options.visitors
        )
        queues = Queues(
            filling=Jobs(options.queue),
            looking=Jobs(2 * options.visitors),
            reading=Jobs(2 * options.visitors),
        )
        for jobs in queues:
            ending.callback(jobs.close)
        page = Page(workspaces, queues, Fillers(filling, looking), options.networks)
        page.warm()
        page.blocks.queue(default_concurrency_limit=None, max_size=None)
        ending.callback(page.blocks.close, verbose=False)
        _, address, _ = page.blocks.launch(
            server_name=options.host,
            server_port=port,
            auth=None if options.password is None else functools.partial(_right, options.password),
            auth_message="Any name, and the password that whoever runs this server gave you.",
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            max_file_size=f"{options.megabytes}mb",
            app_kwargs={"exception_handlers": {OSError: _not_stored}},
            footer_links=[],
            enable_monitoring=False,
            state_session_capacity=2
            * options.visitors,  # what Gradio keeps of pages that were closed
            ssr_mode=False,
            theme=gr.themes.Soft(
                font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
            ),
            css=STYLE,
        )
        stop = threading.Event()
        sweeper = threading.Thread(target=_sweep, args=(workspaces, root, stop), daemon=True)
        sweeper.start()
        ending.callback(sweeper.join)
        ending.callback(stop.set)
        yield address


def _right(password: str, _name: str, given: str) -> bool:
    return secrets.compare_digest(given.encode(), password.encode())


def _not_stored(_request: Request, error: Exception) -> PlainTextResponse:
    """For an upload that the disk has no room for; any other failure says nothing of the server's files."""
    from starlette.responses import PlainTextResponse  # it comes with Gradio

    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return PlainTextResponse(explain(error), status_code=507)
    logger.error("a request failed", exc_info=error)
    return PlainTextResponse("The server failed. Reload the page and try again.", status_code=500)


def _free_port(host: str, port: int) -> int:
    """The port, or any that is free for 0."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.create_server((host, port), family=family) as server:
            found: int = server.getsockname()[1]
            return found
    except (OSError, OverflowError) as error:
        raise InputError(f"--port: {host}:{port} cannot be listened at: {error}") from error


def _sweep(workspaces: Workspaces, root: Path, stop: threading.Event) -> None:
    while not stop.wait(SWEEP_SECONDS):
        try:
            workspaces.sweep()
            folders = workspaces.folders()
            for path in root.iterdir():
                with suppress(OSError):
                    if path not in folders and time.time() - path.stat().st_mtime > UPLOAD_SECONDS:
                        shutil.rmtree(path) if path.is_dir() else path.unlink()
        except Exception:
            logger.exception("files of visitors could not be deleted; tried again soon")
