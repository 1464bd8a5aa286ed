# SPDX-License-Identifier: Apache-2.0
"""The main job on files: a video or a folder of frames in, the same without its hole out."""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from vinpaint.errors import InputError, InputWarning
from vinpaint.inpainting import Inpainter
from vinpaint.painting import Image, Mask
from vinpaint.pipeline import drain, prefetch
from vinpaint.video.atomic import AtomicOutput, check_distinct
from vinpaint.video.masks import Masks, Stamp, open_mask
from vinpaint.video.preview import ContactSheet, side_by_side, side_by_side_size
from vinpaint.video.reader import Clip, Frame, open_clip
from vinpaint.video.shots import find_cuts
from vinpaint.video.windows import Plan, make_plan
from vinpaint.video.writer import RgbVideoWriter, open_writer

DECODED_AHEAD = 8
"""Frames decoded before the network asks for them."""

FILLED_AHEAD = 8
"""Filled frames that wait for the encoder."""


@dataclass(frozen=True)
class Report:
    """What :func:`inpaint_video` did.

    Attributes:
        frames: frames written.
        hole_frames: those of them that had a hole.
        first_hole: the first of these; ``None`` without any.
        shots: stretches between two cuts.
        seconds: time it took, both passes.
    """

    frames: int
    hole_frames: int
    first_hole: int | None
    shots: int
    seconds: float


def inpaint_video(
    input: str | Path,
    output: str | Path,
    *,
    mask: str | Path | None = None,
    boxes: Sequence[str] = (),
    inpainter: Inpainter | Callable[[], Inpainter] | None = None,
    dilate: int = 4,
    invert: bool = False,
    feather: int = 0,
    mask_resize: bool = False,
    allow_truncated: bool = False,
    overwrite: bool = False,
    codec: str | None = None,
    crf: float | None = None,
    pix_fmt: str | None = None,
    preview: str | Path | None = None,
    compare: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Fill the hole in a video file or a folder of frames.

    The clip is read twice: once, small, to find the cuts; once to fill it. Decoding, network and encoding
    overlap, and memory does not grow with the clip. Audio, subtitles, time stamps, rotation, colour tags and
    bit depth are kept, and so is every known pixel (see :class:`vinpaint.video.writer.VideoWriter`).

    Args:
        input: a video that FFmpeg reads, or a folder of PNG, JPEG or WebP frames.
        output: the file to write; a folder of PNG frames for a folder.
        mask: an image for all frames, a folder with one a frame, or a video; white is the hole.
        boxes: instead of ``mask``: ``"x,y,w,h"`` or ``"x,y,w,h@START-END"``, in pixels and frames or seconds.
        inpainter: who fills, or a function that makes it once the arguments have been checked; ``None``: the
            shipped weights on the best device.
        dilate: pixels the hole grows by.
        invert: black is the hole.
        feather: pixels inside the hole's edge over which the fill blends in.
        mask_resize: allow a mask of another size.
        allow_truncated: fill what can be read of a damaged file.
        overwrite: replace an output that exists.
        codec, crf, pix_fmt: of the written video; ``None``: chosen from the input and the suffix.
        preview: a PNG file for a contact sheet, input and output side by side.
        compare: a video file, input left and output right.
        progress: called with frames done and frames in all (0: not known yet); with 0 done while the clip is looked
            through. What it raises ends the work, and nothing stays behind.

    Returns:
        What was done. If no frame has a hole the output equals the input: ``hole_frames`` is 0.

    Raises:
        InputError: anything wrong with an argument or a file it names; nothing is written then.
        OSError: the output cannot be written, for example on a full disk; nothing stays behind.
    """
    started = time.monotonic()
    if (mask is None) == (not boxes):
        raise InputError(
            f"--mask or --box: expected one of the two, got {'both' if boxes else 'neither'}"
        )
    clip = open_clip(input, allow_truncated=allow_truncated)
    masks = open_mask(
        list(boxes) if mask is None else mask,
        clip,
        dilate=dilate,
        invert=invert,
        feather=feather,
        resize=mask_resize,
        allow_truncated=allow_truncated,
    )
    inputs = [clip.info.path, *([] if mask is None else [Path(mask)])]
    check_distinct({"--output": output, "--preview": preview, "--compare": compare})
    writer = open_writer(
        output, clip, codec=codec, crf=crf, pix_fmt=pix_fmt, overwrite=overwrite, inputs=inputs
    )
    sheet_file = comparison = None
    if preview is not None:
        sheet_file = AtomicOutput(
            preview, "file", overwrite=overwrite, inputs=inputs, argument="--preview"
        )
    if compare is not None:
        size = side_by_side_size(clip.info.width, clip.info.height)
        comparison = RgbVideoWriter(
            compare, clip, *size, overwrite=overwrite, inputs=inputs, argument="--compare"
        )
    if not isinstance(inpainter, Inpainter):
        inpainter = (inpainter or Inpainter.from_pretrained)()
    with ExitStack() as outputs:
        sheet_path = None if sheet_file is None else outputs.enter_context(sheet_file)
        if comparison is not None:
            outputs.enter_context(comparison)
        outputs.enter_context(writer)
        plan, first_hole = _plan(clip, masks, progress)
        sheet = ContactSheet(plan.hole_frames or plan.frames)

        def write(item: tuple[Frame, Mask, Image]) -> None:
            frame, hole, filled = item
            if sheet_path is not None and (hole.any() or not plan.hole_frames):
                sheet.add(frame, filled, hole)
            if comparison is not None:
                comparison.write(frame, side_by_side(frame.rgb, filled))
            writer.write(frame, filled, masks.weights(hole))

        with (
            drain(write, FILLED_AHEAD) as put,
            closing(_filled(clip, masks, plan, inpainter)) as filled_frames,
        ):
            for done, item in enumerate(filled_frames, 1):
                put(item)
                if progress is not None:
                    progress(done, plan.frames)
        if sheet_path is not None:
            sheet.save(sheet_path)
    return Report(
        plan.frames, plan.hole_frames, first_hole, len(plan.shots), time.monotonic() - started
    )


def _plan(
    clip: Clip, masks: Masks, progress: Callable[[int, int], None] | None
) -> tuple[Plan, int | None]:
    """The first pass: cuts, what to compute, and the first frame with a hole. Keeps two numbers a frame."""
    first_hole: int | None = None
    stamps: list[Stamp] = []

    def images() -> Iterator[Image]:
        for thumbnail in clip.thumbnails():
            stamps.append(Stamp(thumbnail.index, thumbnail.time))
            yield thumbnail.image

    def watched(thumbnails: Iterator[Image]) -> Iterator[Image]:
        for image in thumbnails:
            if progress is not None:
                progress(0, clip.likely_frame_count or 0)
            yield image

    with closing(prefetch(images(), DECODED_AHEAD)) as thumbnails:
        cuts = find_cuts(watched(thumbnails))

    def holes() -> Iterator[Mask]:
        nonlocal first_hole
        for stamp, hole in masks.pair(stamps):
            if progress is not None:
                progress(0, len(stamps))
            if first_hole is None and hole.any():
                first_hole = stamp.index
            yield hole

    plan = make_plan(holes(), len(stamps), cuts)
    if not plan.hole_frames:
        warnings.warn(
            "the mask is empty in every frame, so the output equals the input (lightest mask value "
            f"{masks.brightest} of 255; 128 and above is the hole)",
            InputWarning,
            stacklevel=3,
        )
    for shot in plan.shots:
        if shot.all_hole and not plan.all_hole:
            warnings.warn(
                f"the hole covers everything in frames {shot.start} to {shot.stop - 1}, a whole shot: "
                "nothing is known there to fill it from",
                InputWarning,
                stacklevel=3,
            )
    return plan, first_hole


def _filled(
    clip: Clip, masks: Masks, plan: Plan, inpainter: Inpainter
) -> Generator[tuple[Frame, Mask, Image], None, None]:
    """The second pass: every frame, its hole and its filled picture."""

    def decoded() -> Iterator[tuple[Frame, Mask]]:
        for frame, hole in masks.pair(clip.frames()):
            _ = frame.rgb  # converted here, beside the network
            yield frame, hole

    waiting: deque[tuple[Frame, Mask]] = deque()
    with closing(prefetch(decoded(), DECODED_AHEAD)) as pairs:

        def pictures() -> Iterator[tuple[Image, Mask]]:
            for frame, hole in pairs:
                waiting.append((frame, hole))
                yield frame.rgb, hole

        for picture in inpainter.fill(pictures(), plan):
            yield *waiting.popleft(), picture
