# SPDX-License-Identifier: Apache-2.0
"""The page: what it shows and what its controls call. What is done stands in project.py."""

from __future__ import annotations

import asyncio
import functools
import html
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import gradio as gr
import numpy as np

from vinpaint.errors import InputError
from vinpaint.web.frames import SIDE
from vinpaint.web.jobs import Job, Jobs, Told
from vinpaint.web.options import Options
from vinpaint.web.project import CONTAINERS, VIDEO, Project
from vinpaint.web.wording import (
    BEGINNING,
    WELCOME,
    Mood,
    beginning,
    ended,
    explain,
    running,
    waiting,
)
from vinpaint.web.worker import Filler, Networks
from vinpaint.web.workspaces import Workspace, Workspaces

Updates = dict[gr.components.Component, Any]

STYLE = """
#status {position: sticky; top: 0; z-index: 30}
#status .vp {border-radius: 8px; padding: .6em .9em; background: var(--block-background-fill);
  border: 1px solid var(--border-color-primary); overflow: hidden; position: relative}
#status .vp.bad {border-color: #c0392b; border-left: 6px solid #c0392b}
#status .vp.good {border-left: 6px solid #1e8e4e}
#status .bar {position: absolute; left: 0; bottom: 0; height: 4px; background: var(--color-accent)}
#filled-video video {width: 100%; max-height: 480px; background: #000}
footer {display: none !important}
"""

KEEP_TOKEN = "(token) => { sessionStorage.setItem('vinpaint', token); }"
FIND_TOKEN = "(token) => sessionStorage.getItem('vinpaint') || ''"

LOOK_AT_RESULT = """() => {
  const result = document.getElementById("result");
  const said = document.querySelector("#status .vp");
  const painting = document.querySelector("#editor:hover");  // not away from under the brush
  if (result && said && !painting && /^(Done|A first look)/.test(said.innerText)) {
    result.scrollIntoView({behavior: "smooth"});
  }
}"""

HOW = [
    ("It moves: follow it through the video", "follow"),
    ("It stays in this place, in the whole video", "always"),
    ("It stays in this place, in some frames only", "span"),
]

DOWNLOAD = "Download the video"
EARLIER = "Download the video that was filled before"

NETWORKS = ("weights", "precision", "propagate")
"""Options of the networks that a visitor may choose."""

PLAYED = (".mp4", ".mov", ".webm")
"""Suffixes that browsers play."""


class Queues(NamedTuple):
    """What is done one after another; each beside the others.

    Attributes:
        filling: whole videos.
        looking: following, finding logos, trying some frames.
        reading: what visitors bring.
    """

    filling: Jobs
    looking: Jobs
    reading: Jobs


class Fillers(NamedTuple):
    """Who fills in the queues of the same name."""

    filling: Filler
    looking: Filler


class Page:
    """The page of one server.

    Args:
        workspaces: who is on it.
        queues: of jobs.
        fillers: who does those with networks.
        networks: what ``weights``, ``precision`` and ``propagate`` are at first.
    """

    def __init__(
        self,
        workspaces: Workspaces,
        queues: Queues,
        fillers: Fillers,
        networks: Networks,
    ) -> None:
        self.workspaces = workspaces
        self._queues = queues
        self._fillers = fillers
        self._networks = networks
        self._pages: dict[str, str] = {}  # Gradio's session to token
        self.blocks = self._build()

    # --- what is on it

    def _build(self) -> gr.Blocks:
        with gr.Blocks(title="vinpaint", analytics_enabled=False) as blocks:
            self.token = gr.Textbox(visible=False)
            gr.Markdown(
                "# vinpaint\nFills what you paint over: a passer-by, a logo, a scratch. Drop a video, paint over what "
                "should go, say whether it moves, press **Fill the video**."
            )
            self.status = _markup(_say(WELCOME), elem_id="status")
            with gr.Row():
                with gr.Column(scale=3):
                    self.upload = gr.File(
                        label="1. Drop a video", elem_id="upload", height=120, visible=False
                    )
                    self.about = gr.Markdown(elem_id="about")
                    self.editor = gr.ImageEditor(
                        label="Paint over what should go",
                        show_label=False,  # it would cover the picture
                        elem_id="editor",
                        sources=(),
                        transforms=(),
                        layers=False,
                        brush=_brush(SIDE),
                        eraser=gr.Eraser(default_size=24),
                        format="png",
                        visible=False,
                    )
                    self.frame = gr.Slider(
                        0, 1, step=1, label="Frame", elem_id="frame", visible=False
                    )
                with gr.Column(scale=2):
                    with gr.Group(visible=False) as self.hole:
                        self.how = gr.Radio(
                            HOW, value=None, label="3. What should go …", elem_id="how"
                        )
                        self.when = gr.Textbox(
                            label="From - to",
                            placeholder="10-20 (frames) or 1.5s-3s",
                            elem_id="when",
                            visible=False,
                        )
                        self.box = gr.Checkbox(
                            label="As boxes around what I painted",
                            info="each patch of paint becomes the rectangle around it",
                            elem_id="as-box",
                        )
                        with gr.Row():
                            self.add = gr.Button("Add to the hole", elem_id="add")
                            self.logo = gr.Button("Find a logo", elem_id="logo")
                        self.parts = gr.CheckboxGroup(
                            label="The hole: what will be filled",
                            info="without its tick a part does not count",
                            visible=False,
                            elem_id="parts",
                        )
                        with gr.Accordion("More ways to give the hole", open=False):
                            with gr.Row():
                                self.box_text = gr.Textbox(
                                    label="--box",
                                    placeholder="x,y,width,height or x,y,w,h@10-20",
                                    elem_id="box-text",
                                )
                                self.add_box = gr.Button("Add the box", elem_id="add-box")
                            self.mask_file = gr.File(
                                label="A mask (picture or video, white = fill), boxes (CSV), or subtitles (SRT, VTT, ASS)",
                                elem_id="mask-file",
                                height=110,
                            )
                    with gr.Accordion("Options", open=False, elem_id="options") as self.settings:
                        self.suffix = gr.Dropdown(
                            ["as the input", *CONTAINERS],
                            value="as the input",
                            label="--output",
                            info="kind of file",
                        )
                        self.preview = gr.Checkbox(
                            label="--preview", info="also write a contact sheet"
                        )
                        self.compare = gr.Checkbox(
                            label="--compare",
                            info="also write a video, input and output side by side",
                        )
                        self.options = Options(self._networks)
                    with gr.Row():
                        self.try_button = gr.Button("Try some frames", visible=False, elem_id="try")
                        self.fill_button = gr.Button(
                            "Fill the video", variant="primary", visible=False, elem_id="fill"
                        )
                        self.cancel_button = gr.Button(
                            "Cancel", variant="stop", visible=False, elem_id="cancel"
                        )
            with gr.Column(visible=False, elem_id="result") as self.result:
                self.slider = gr.ImageSlider(
                    label="Before (left of the line) and after (right)",
                    elem_id="before-after",
                    max_height=540,
                    format="png",
                )
                self.moment = gr.Slider(0, 1, step=1, label="Frame of the result", elem_id="moment")
                self.video = _markup(elem_id="filled-video", visible=False)
                self.download = gr.DownloadButton(DOWNLOAD, variant="primary", elem_id="download")
                self.files = gr.File(
                    label="More files", visible=False, elem_id="files", interactive=False
                )
                self.command = gr.Textbox(
                    label="The same on the command line",
                    buttons=["copy"],
                    interactive=False,
                    elem_id="command",
                )
            self._wire(blocks)
        return blocks

    def _wire(self, blocks: gr.Blocks) -> None:
        every: list[Any] = [
            self.token, self.status, self.upload, self.about, self.editor, self.frame, self.hole, self.when, self.parts,
            self.box_text, self.mask_file, self.settings, self.try_button, self.fill_button, self.cancel_button,
            self.result, self.slider, self.moment, self.video, self.download, self.files, self.command,
        ]  # fmt: skip
        painted = [self.token, self.editor, self.frame, self.how, self.when, self.box]
        settings = [self.suffix, self.preview, self.compare, *self.options.controls]

        def on(event: Any, does: Callable[..., Any], inputs: list[Any]) -> Any:
            return event(
                self._guarded(does),
                inputs,
                every,
                api_name=does.__name__.lstrip("_"),
                show_progress="hidden",
            )

        def works(
            event: Any,
            does: Callable[..., Any],
            inputs: list[Any],
            end: Callable[..., Any] = self._show_end,
            given: list[Any] = painted,
        ) -> None:
            """An event that starts a job: it is watched, and then ``end(*given)`` shows everything anew."""
            started = on(event, does, inputs)
            watched = started.then(
                self._watch,
                [self.token],
                [self.status, self.cancel_button],
                show_progress="hidden",
                api_visibility="private",
            )
            shown = watched.then(
                self._guarded(end),
                given,
                every,
                show_progress="hidden",
                api_visibility="private",
            )
            shown.then(None, js=LOOK_AT_RESULT)

        arrived = blocks.load(
            self._guarded(self._arrive),
            [self.token],
            every,
            js=FIND_TOKEN,
            show_progress="hidden",
            api_name="arrive",
        )
        arrived.then(None, [self.token], js=KEEP_TOKEN)
        watched = arrived.then(
            self._watch,
            [self.token],
            [self.status, self.cancel_button],
            show_progress="hidden",
            api_name="watch",
        )
        on(watched.then, self._show_end, painted)
        blocks.unload(self._leave)
        gr.Timer(5).tick(
            self._alive, [self.token], show_progress="hidden", api_visibility="private", queue=False
        )

        works(
            self.upload.upload,
            self._load,
            [self.token, self.upload, self.options.control("allow_truncated")],
            self._show,  # what was painted was on the clip before
            [self.token, self.frame],
        )
        on(self.frame.release, self._go, painted)
        on(self.editor.clear, self._show, [self.token, self.frame])  # it takes the picture too
        on(self.how.change, self._chose_how, [self.how])
        works(self.add.click, self._add, painted)
        works(self.logo.click, self._find_logo, painted)
        works(self.add_box.click, self._add_box, [*painted, self.box_text])
        works(self.mask_file.upload, self._add_file, [*painted, self.mask_file])
        on(self.parts.input, self._choose, [*painted, self.parts])
        works(self.try_button.click, self._try, [*painted, *settings])
        works(self.fill_button.click, self._fill, [*painted, *settings])
        on(self.cancel_button.click, self._cancel, [self.token])
        on(self.moment.release, self._compare, [self.token, self.moment])

    def warm(self) -> None:
        """Load the networks that most visitors will use. Raises what making them raises."""
        _, networks = self._settings([control.value for control in self.options.controls])
        self._fillers.filling.load(lambda *_: None, networks)

    # --- coming and going

    def _arrive(self, token: str, request: gr.Request) -> Updates:
        workspace = self.workspaces.open(token)
        self._pages[request.session_hash or ""] = workspace.token
        return {
            self.token: workspace.token,
            self.status: _say(beginning(workspace.project)),
            self.upload: gr.update(visible=True),
            **self._everything(workspace, 0),
        }

    def _leave(self, request: gr.Request) -> None:
        token = self._pages.pop(request.session_hash or "", "")
        if token not in self._pages.values():  # a tab that was duplicated has it too
            self.workspaces.close_page(token)

    def _alive(self, token: str) -> None:
        with suppress(InputError):  # the next thing the visitor does says so
            self.workspaces.get(token)

    # --- events that answer at once

    def _chose_how(self, how: str) -> Updates:
        return {self.when: gr.update(visible=how == "span")}

    def _go(self, *painted: Any) -> Updates:
        workspace = self._take_paint(*painted)
        return self._everything(workspace, int(painted[2]))

    def _choose(self, *given: Any) -> Updates:
        *painted, chosen = given
        workspace = self._take_paint(*painted)
        project = workspace.project
        project.left_out = {part.label for part in project.parts if part.label not in chosen}
        return self._everything(workspace, int(painted[2]))

    def _cancel(self, token: str) -> Updates:
        self.workspaces.get(token).cancel()
        return {self.status: _say("Cancelling …")}

    def _compare(self, token: str, moment: float) -> Updates:
        return {self.slider: _pair(self.workspaces.get(token).project, int(moment))}

    # --- events that start a job

    def _load(self, token: str, upload: str | None, allow_truncated: bool) -> Updates:
        workspace = self.workspaces.get(token)
        workspace.check_ready()
        if upload is None:
            raise InputError("Nothing was uploaded: drop a video file.")
        path = workspace.project.receive(Path(upload))
        workspace.start(
            self._queues.reading,
            lambda told: workspace.project.load(path, told, allow_truncated=allow_truncated),
        )
        return {self.status: _say(BEGINNING), self.upload: None, self.editor: None}

    def _add(self, *painted: Any) -> Updates:
        workspace = self._take_paint(*painted, ready=True, must=True)
        self._follow(workspace)
        return self._begun(workspace)

    def _find_logo(self, *painted: Any) -> Updates:
        workspace = self._take_paint(*painted, ready=True)
        workspace.start(self._queues.looking, workspace.project.find_logo)
        return self._begun(workspace)

    def _add_box(self, *given: Any) -> Updates:
        *painted, text = given
        workspace = self._take_paint(*painted, ready=True)
        workspace.project.add_box(text)
        self._follow(workspace)
        return {**self._begun(workspace), self.box_text: ""}

    def _add_file(self, *given: Any) -> Updates:
        *painted, upload = given
        workspace = self._take_paint(*painted, ready=True)
        path = workspace.project.receive(Path(upload))
        workspace.start(self._queues.reading, lambda told: workspace.project.add_file(path, told))
        return {**self._begun(workspace), self.mask_file: None}

    def _follow(self, workspace: Workspace) -> None:
        def follow(told: Told) -> None:
            try:
                workspace.project.follow(told)
            except BaseException:
                workspace.project.leave_out_unfollowed()
                raise

        workspace.start(self._queues.looking, follow)

    def _try(self, *given: Any) -> Updates:
        workspace = self._take_paint(*given[:6], ready=True)
        index, (_, _, _, *values) = int(given[2]), given[6:]
        options, networks = self._settings(values)
        workspace.start(
            self._queues.looking,
            lambda told: workspace.project.try_frames(
                index, self._fillers.looking, networks, told, options
            ),
        )
        return self._begun(workspace)

    def _fill(self, *given: Any) -> Updates:
        workspace = self._take_paint(*given[:6], ready=True)
        suffix, preview, compare, *values = given[6:]
        flags = self.options.flags(values)
        options, networks = self._settings(values)
        chosen = suffix if suffix in CONTAINERS else None
        workspace.start(
            self._queues.filling,
            lambda told: workspace.project.fill(
                self._fillers.filling,
                networks,
                told,
                options,
                suffix=chosen,
                preview=preview,
                compare=compare,
                flags=flags,
            ),
        )
        return self._begun(workspace)

    def _settings(self, values: list[Any]) -> tuple[dict[str, Any], Networks]:
        """Options of :func:`vinpaint.inpaint_video`, and which networks."""
        options = self.options.read(values)
        return options, {name: options.pop(name) for name in NETWORKS}

    def _begun(self, workspace: Workspace) -> Updates:
        """After a job was started: what was painted is in the hole now, and no longer paint."""
        return {self.status: _say(BEGINNING), **self._drawing(workspace)}

    def _take_paint(
        self,
        token: str,
        editor: dict[str, Any] | None,
        _index: float,
        how: str | None,
        when: str,
        box: bool,
        *,
        ready: bool = False,
        must: bool = False,
    ) -> Workspace:
        """The workspace, with what was painted and not added yet added to its hole: paint is never lost.

        ``ready``: a job is to be started; if it cannot be, the paint stays paint. ``must``: something must be painted.
        """
        workspace = self.workspaces.get(token)
        workspace.act()
        if ready:
            workspace.check_ready()
        painted = _paint(editor)
        if painted is not None:
            if how is None:
                raise InputError(
                    "Say first whether what you painted moves or stays in its place: the choice is beside the picture."
                )
            # The slider may have moved on; the paint is on the frame that was shown.
            workspace.project.add_painted(painted, workspace.frame, how=how, box=box, when=when)
        elif must:
            raise InputError(
                "Nothing new is painted on this frame: paint over what should go, then add it. To change what was added, "
                "take its tick away and paint again."
            )
        return workspace

    # --- what is seen

    async def _watch(self, token: str) -> AsyncIterator[Updates]:
        """Show how far the job of a workspace is, until it has ended."""
        # Always something: of a generator that gives nothing Gradio makes empty outputs.
        yield {self.cancel_button: gr.update(visible=False)}
        try:
            workspace = self.workspaces.get(token)
        except InputError:
            return
        job = workspace.job
        if job is None or workspace.told is job:
            return
        while job.active:
            yield {
                self.status: self._progress(job),
                self.cancel_button: gr.update(visible=True),
            }
            await asyncio.sleep(0.25)
        workspace.told = job
        yield {
            self.status: _say(*ended(job, workspace.project)),
            self.cancel_button: gr.update(visible=False),
        }

    def _progress(self, job: Job) -> str:
        if job.state == "waiting":
            return _say(waiting(job.ahead))
        return _say(running(job), share=job.done / job.total if job.total else None)

    def _show(self, token: str, index: float) -> Updates:
        return self._everything(self.workspaces.get(token), int(index))

    def _show_end(self, *painted: Any) -> Updates:
        """Everything once a job has ended. What was painted meanwhile is taken; what cannot be stays paint, on the
        frame that it is on, and hides no result."""
        try:
            return self._go(*painted)
        except InputError:  # such as: it was not said whether the paint moves
            workspace = self.workspaces.get(painted[0])
            updates = self._everything(workspace, workspace.frame)
            return {c: new for c, new in updates.items() if c not in (self.editor, self.frame)}

    def _everything(self, workspace: Workspace, index: int) -> Updates:
        """Every control as the workspace has it; paint is cleared, for it has been added."""
        project, frames = workspace.project, workspace.project.frames
        there = gr.update(visible=frames is not None)
        updates: Updates = {
            self.hole: there,
            self.try_button: there,
            self.fill_button: there,
            self.cancel_button: gr.update(
                visible=workspace.job is not None and workspace.job.active
            ),
            self.result: gr.update(visible=project.tried is not None or project.filled is not None),
        }
        if frames is None:
            return {
                **updates,
                self.about: "",
                self.editor: gr.update(visible=False),
                self.frame: gr.update(visible=False),
            }
        last = len(frames) - 1
        workspace.frame = index = max(0, min(index, last))
        updates |= {
            self.about: f"{html.escape(project.about())}\n\n**2. Paint over what should go**",
            self.frame: gr.update(maximum=last, value=index, visible=True),
            **self._drawing(workspace),
        }
        return {**updates, **self._result(project, index)}

    def _drawing(self, workspace: Workspace) -> Updates:
        """The frame to paint on, its hole marked, without paint; and the parts of the hole."""
        project = workspace.project
        if project.frames is None:
            return {}
        size = project.frames.size
        labels = [part.label for part in project.parts]
        return {
            self.editor: gr.update(
                value={
                    "background": project.shown(workspace.frame),
                    "layers": [],
                    "composite": None,
                },
                canvas_size=size,
                brush=_brush(size[0]),
                visible=True,
            ),
            self.parts: gr.update(
                choices=labels,
                value=[part.label for part in project.chosen],
                visible=bool(labels),
            ),
        }

    def _result(self, project: Project, index: int) -> Updates:
        """What was tried last, if that was after the last fill, and what was filled; ``index``: the frame above."""
        tried, filled = project.tried, project.filled
        hidden = gr.update(visible=False)
        updates: Updates = dict.fromkeys(
            [self.video, self.download, self.files, self.command], hidden
        )
        if filled is not None:
            path = filled.files[VIDEO]
            others = [str(file) for name, file in filled.files.items() if name != VIDEO]
            updates = {
                self.video: gr.update(
                    value=_player(path), visible=tried is None and path.suffix in PLAYED
                ),
                self.download: gr.update(
                    label=DOWNLOAD if tried is None else EARLIER, value=str(path), visible=True
                ),
                self.files: gr.update(value=others or None, visible=bool(others)),
                self.command: gr.update(value=filled.command, visible=True),
            }
        if tried is not None:
            first, last = tried.frames.start, tried.frames.stop - 1
            index = max(first, min(index, last))
        elif filled is not None:
            first, last, index = 0, len(filled.frames) - 1, filled.first
        else:
            return updates
        updates[self.moment] = gr.update(minimum=first, maximum=last, value=index)
        return {**updates, self.slider: _pair(project, index)}

    # --- what goes wrong

    def _guarded(self, does: Callable[..., Updates]) -> Callable[..., Updates]:
        """The same, with a sentence in place of an exception."""

        @functools.wraps(does)
        def guarded(*given: Any) -> Updates:
            try:
                return does(*given)
            except Exception as error:  # noqa: BLE001 - the page goes on
                return {self.status: _say(explain(error), "bad")}

        return guarded


def _brush(width: int) -> gr.Brush:
    """A brush for pictures of this width."""
    return gr.Brush(default_size=max(3, width // 40), colors=["#00e0ff"], color_mode="fixed")


def _markup(value: str = "", **given: Any) -> gr.Markdown:
    """HTML of our own. (Gradio's HTML component is emptied by every event that leaves it as it is.)"""
    return gr.Markdown(value, sanitize_html=False, latex_delimiters=[], **given)


def _paint(editor: dict[str, Any] | None) -> np.ndarray | None:
    """Where an editor's layers were painted on, (h, w) bool; ``None`` if nowhere."""
    painted = [layer[..., 3] > 0 for layer in (editor or {}).get("layers", []) if layer.ndim == 3]
    union = np.logical_or.reduce(painted) if painted else np.zeros((1, 1), np.bool_)
    return union if union.any() else None


def _pair(project: Project, index: int) -> tuple[np.ndarray, np.ndarray] | None:
    """A frame before and after, of what was tried or of the whole result."""
    if (tried := project.tried) is not None:
        return tried.at(index)
    if project.filled is not None and project.frames is not None:
        index = max(0, min(index, len(project.filled.frames) - 1))
        return project.frames.at(index), project.filled.frames.at(index)
    return None


def _player(path: Path) -> str:
    source = f"gradio_api/file={quote(str(path))}"
    return f'<video controls preload="auto" src="{source}"></video>'


def _say(text: str, mood: Mood = "", share: float | None = None) -> str:
    """A line of the status, with a bar for what is done of it."""
    bar = ""
    if share is not None:
        bar = f'<div class="bar" style="width:{100 * min(1.0, share):.1f}%"></div>'
    return f'<div class="vp {mood}" role="status" aria-live="polite">{html.escape(text)}{bar}</div>'
