# SPDX-License-Identifier: Apache-2.0
"""Writing a clip again, with its holes filled and everything else as it was."""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import av
import numpy as np

from vinpaint.errors import InputError
from vinpaint.video.atomic import AtomicOutput
from vinpaint.video.color import ColorConverter, Rgb
from vinpaint.video.composite import Mask, blend, composite_native
from vinpaint.video.encoding import choose_encoding
from vinpaint.video.images import write_png
from vinpaint.video.passthrough import Passthrough
from vinpaint.video.reader import Clip, ClipInfo, FolderClip, Frame, VideoClip

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from fractions import Fraction
    from types import TracebackType

    from typing_extensions import Self

Result = TypeVar("Result")


class _Output(ABC):
    """A context manager around an atomic output: opens, finishes, or leaves nothing behind."""

    def __init__(self, output: AtomicOutput) -> None:
        self._stack = ExitStack()
        self._output = output

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._open(stack.enter_context(self._output), stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        stack = self._stack.pop_all()
        if kind is None:
            try:
                self._finish()
            except BaseException as failure:
                stack.__exit__(type(failure), failure, failure.__traceback__)
                raise
        stack.__exit__(kind, error, trace)

    @abstractmethod
    def _open(self, hidden: Path, stack: ExitStack, /) -> None: ...

    @abstractmethod
    def _finish(self) -> None: ...


class ClipWriter(_Output):
    """Writes the frames of one clip, in order. A context manager.

    The output gets its name when the block is left without an exception; with one, nothing
    stays behind.
    """

    @abstractmethod
    def write(self, frame: Frame, fill: Rgb | None = None, mask: Mask | None = None) -> None:
        """Write ``frame`` with ``fill`` where ``mask`` is not 0.

        fill: (H, W, 3) of ``frame.rgb``'s dtype. mask: (H, W), bool, uint8 (255 takes the fill,
        less blends) or float (1 takes the fill); 0 is known. Without them the frame is written
        as it came. Outside the mask every sample of the frame's own pixel format stays bit for
        bit (a lossy codec then does what it does). ``frame.native`` is used up.
        """


def open_writer(
    path: str | Path,
    clip: Clip,
    *,
    codec: str | None = None,
    crf: float | None = None,
    pix_fmt: str | None = None,
    overwrite: bool = False,
    inputs: Sequence[Path] = (),
) -> ClipWriter:
    """The writer for a clip: a folder of PNG frames for a folder, else a video file.

    A path without a suffix also asks for a folder. ``inputs``: more files, beside the clip
    itself, that must not be written over. Raises InputError as :class:`VideoWriter` does.
    """
    path = Path(path)
    if isinstance(clip, VideoClip) and path.suffix:
        return VideoWriter(
            path,
            clip,
            codec=codec,
            crf=crf,
            pix_fmt=pix_fmt,
            overwrite=overwrite,
            inputs=inputs,
        )
    for name, value in (("--codec", codec), ("--crf", crf), ("--pix-fmt", pix_fmt)):
        if value is not None:
            raise InputError(f"{name}: a folder of PNG frames has no such choice; leave it out")
    if isinstance(clip, FolderClip) and path.suffix.lower() in (".mp4", ".mov", ".mkv", ".webm"):
        raise InputError(
            f"--output: {path} names a video, but a folder of frames gives a folder; leave the "
            f"suffix {path.suffix} out"
        )
    return FolderWriter(path, clip, overwrite=overwrite, inputs=inputs)


class FolderWriter(ClipWriter):
    """A folder with one PNG a frame, named after the input's frames, in the input's depth.

    Grey stays grey and alpha stays as it is; known pixels are those of the input.
    """

    def __init__(
        self,
        path: str | Path,
        clip: Clip,
        *,
        overwrite: bool = False,
        inputs: Sequence[Path] = (),
    ) -> None:
        super().__init__(
            AtomicOutput(path, "folder", overwrite=overwrite, inputs=[clip.info.path, *inputs])
        )

    def _open(self, hidden: Path, _stack: ExitStack, /) -> None:
        self._folder = hidden

    def _finish(self) -> None:
        pass

    def write(self, frame: Frame, fill: Rgb | None = None, mask: Mask | None = None) -> None:
        picture: Any = frame.rgb if isinstance(frame.native, av.VideoFrame) else frame.native
        if fill is not None and mask is not None:
            _check_fill(frame, fill, mask)
            mixed = blend(frame.rgb, fill, mask)
            if picture.ndim == 2:
                # Grey of the fill by the weights of BT.601, as image libraries do.
                gray = np.rint(mixed @ np.array([0.299, 0.587, 0.114])).astype(picture.dtype)
                picture = np.where(mask > 0, gray, picture)
            else:
                picture = np.concatenate([mixed, picture[:, :, 3:]], axis=2)
        write_png(self._folder / f"{frame.name}.png", picture)


class VideoWriter(ClipWriter):
    """A video file with the time stamps, colours, shape and other streams of its source.

    - **Known pixels.** The fill is put into the frame in its own pixel format. With ``ffv1``
      and a format that it takes, each luma sample outside the hole and each chroma sample that
      no hole pixel shares comes out as it went in. Only then is the frame converted to the
      encoder's format, if that differs.
    - **Time.** The stamps and the time base of the source are kept, and with them a variable
      frame rate. Matroska and WebM round to milliseconds and hold nothing before 0, so a clip
      whose sound starts earlier is shifted as a whole; AVI has a constant rate only.
    - **Shape.** Pixels are stored as in the source and its display matrix is written again
      (MP4, MOV, Matroska), so a rotated clip stays rotated. In a container that has no such
      matrix the pixels are not turned.
    - **The rest.** Metadata and chapters are kept; audio, subtitles and attachments are copied
      packet by packet. A stream that the container cannot hold is left out with an
      InputWarning that names it.
    """

    def __init__(
        self,
        path: str | Path,
        clip: VideoClip,
        *,
        codec: str | None = None,
        crf: float | None = None,
        pix_fmt: str | None = None,
        overwrite: bool = False,
        inputs: Sequence[Path] = (),
    ) -> None:
        """``codec``, ``crf``, ``pix_fmt``: see :func:`~vinpaint.video.encoding.choose_encoding`.

        Raises InputError for an output that exists, is an input or lies in no folder. What
        concerns the choice of codec is raised on entering the block, before the first frame.
        """
        output = AtomicOutput(path, "file", overwrite=overwrite, inputs=[clip.info.path, *inputs])
        super().__init__(output)
        self._clip = clip
        self._codec, self._crf, self._pix_fmt = codec, crf, pix_fmt

    def _open(self, hidden: Path, stack: ExitStack, /) -> None:
        clip, info = self._clip, self._clip.info
        container = _open_container(hidden, self._output.path)
        stack.callback(_close_quietly, container)
        self._container = container
        copier = Passthrough(info.path, clip.stream_index, container)
        stack.callback(copier.close)
        self._copier = copier
        self._video = _Encoder(
            container,
            self._output.path,
            info,
            clip.converter,
            source_format=info.pixel_format,
            size=(info.height, info.width)
            if clip.orientation.transpose
            else (info.width, info.height),
            sample_aspect=clip.stored_sample_aspect,
            codec=self._codec,
            crf=self._crf,
            pix_fmt=self._pix_fmt,
        )
        if clip.orientation.matrix is not None:
            self._video.stream.set_display_matrix(clip.orientation.matrix)
        copier.add_streams(self._video.stream)

    def write(self, frame: Frame, fill: Rgb | None = None, mask: Mask | None = None) -> None:
        native = frame.native
        if not isinstance(native, av.VideoFrame):
            raise TypeError("VideoWriter writes frames of a video; got a picture of a folder")
        if fill is not None and mask is not None:
            _check_fill(frame, fill, mask)
            composite_native(
                native,
                frame.rgb,
                fill,
                mask,
                orientation=self._clip.orientation,
                converter=self._clip.converter,
            )
        self._guarded(lambda: self._video.encode(native))
        self._guarded(lambda: self._copier.advance(float(frame.pts * self._clip.info.time_base)))

    def _finish(self) -> None:
        self._guarded(self._video.flush)
        self._guarded(self._copier.finish)
        self._guarded(self._container.close)

    def _guarded(self, step: Callable[[], Result]) -> Result:
        return _name_output(step, self._output.path)


class RgbVideoWriter(_Output):
    """A plain 8-bit video from RGB pictures: previews and comparisons. A context manager.

    ``clip`` gives the time stamps; the pictures may have another size than the clip.
    """

    def __init__(
        self,
        path: str | Path,
        clip: Clip,
        width: int,
        height: int,
        *,
        overwrite: bool = False,
        inputs: Sequence[Path] = (),
        argument: str = "--output",
    ) -> None:
        """``width`` and ``height``: of the pictures, even numbers. ``argument``: for messages."""
        super().__init__(
            AtomicOutput(
                path,
                "file",
                overwrite=overwrite,
                inputs=[clip.info.path, *inputs],
                argument=argument,
            )
        )
        self._clip = clip
        self._size = (width, height)

    def _open(self, hidden: Path, stack: ExitStack, /) -> None:
        self._container = _open_container(hidden, self._output.path)
        stack.callback(_close_quietly, self._container)
        self._converter = ColorConverter(1, 1, self._size[1])
        self._video = _Encoder(
            self._container,
            self._output.path,
            self._clip.info,
            self._converter,
            source_format="yuv420p",
            size=self._size,
            sample_aspect=self._clip.info.sample_aspect,
            tags=(1, 1, 1, 1),
        )

    def write(self, frame: Frame, rgb: Rgb) -> None:
        """Write uint8 (height, width, 3) at the time of ``frame``."""
        picture = self._converter.from_rgb(rgb, "yuv420p")
        picture.pts, picture.time_base = frame.pts, self._clip.info.time_base
        _name_output(lambda: self._video.encode(picture), self._output.path)

    def _finish(self) -> None:
        _name_output(self._video.flush, self._output.path)
        _name_output(self._container.close, self._output.path)


class MaskVideoWriter(_Output):
    """Masks as a lossless grey video beside a clip. A context manager.

    ``clip`` gives size and time stamps.
    """

    def __init__(
        self,
        path: str | Path,
        clip: Clip,
        *,
        overwrite: bool = False,
        inputs: Sequence[Path] = (),
    ) -> None:
        path = Path(path)
        if path.suffix != ".mkv":
            raise InputError(
                f"--output: {path} cannot hold a lossless mask; expected a .mkv file, or a .png "
                "for a mask that stays the same"
            )
        super().__init__(AtomicOutput(path, "file", overwrite=overwrite, inputs=inputs))
        self._clip = clip

    def _open(self, hidden: Path, stack: ExitStack, /) -> None:
        info = self._clip.info
        self._container = _open_container(hidden, self._output.path)
        stack.callback(_close_quietly, self._container)
        self._video = _Encoder(
            self._container,
            self._output.path,
            info,
            ColorConverter(1, 2, info.height),
            source_format="gray",
            size=(info.width, info.height),
            sample_aspect=info.sample_aspect,
            codec="ffv1",
            pix_fmt="gray",
            tags=(2, 2, 2, 2),
        )

    def write(self, frame: Frame, mask: Mask) -> None:
        """Write a uint8 (H, W) mask at the time of ``frame``."""
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(mask), format="gray")
        picture.pts, picture.time_base = frame.pts, self._clip.info.time_base
        _name_output(lambda: self._video.encode(picture), self._output.path)

    def _finish(self) -> None:
        _name_output(self._video.flush, self._output.path)
        _name_output(self._container.close, self._output.path)


class _Encoder:
    """One encoded stream: native frames in, packets into the container."""

    def __init__(
        self,
        container: av.container.OutputContainer,
        output: Path,
        info: ClipInfo,
        converter: ColorConverter,
        *,
        source_format: str,
        size: tuple[int, int],
        sample_aspect: Fraction,
        codec: str | None = None,
        crf: float | None = None,
        pix_fmt: str | None = None,
        tags: tuple[int, int, int, int] | None = None,
    ) -> None:
        choice = choose_encoding(
            output, container, source_format, *size, codec=codec, crf=crf, pix_fmt=pix_fmt
        )
        self._container = container
        self._converter = converter
        self._format = choice.pixel_format
        counts = container.format.name == "avi"
        # AVI has no time stamps: it counts frames, in decoding order.
        self._time_base = 1 / info.rate if counts else info.time_base
        self._durations: dict[int, int] = {}
        self._last: int | None = None
        stream = container.add_stream(
            choice.encoder,
            rate=info.rate,
            options=choice.options,
            width=size[0],
            height=size[1],
            time_base=self._time_base,
        )
        assert isinstance(stream, av.VideoStream)
        self.stream = stream
        context = stream.codec_context
        context.pix_fmt = choice.pixel_format
        context.sample_aspect_ratio = sample_aspect
        context.thread_type = "AUTO"
        if counts:
            context.max_b_frames = 0
        if choice.encoder == "libx265" and container.format.name in ("mp4", "mov"):
            context.codec_tag = "hvc1"
        if tags is None:
            source_rgb = av.VideoFormat(source_format).is_rgb
            target_rgb = av.VideoFormat(choice.pixel_format).is_rgb
            # From RGB to YUV the matrix and range are those of our own conversion.
            own = source_rgb and not target_rgb
            tags = (
                converter.range_of(choice.pixel_format) if own else info.color_range,
                (1 if converter.matrix == 1 else 6) if own else info.color_matrix,
                info.color_primaries,
                info.color_transfer,
            )
        context.color_range, context.colorspace, context.color_primaries, context.color_trc = tags

    def encode(self, frame: av.VideoFrame) -> None:
        pts, time_base, duration = frame.pts, frame.time_base, frame.duration
        assert pts is not None
        assert time_base is not None
        frame = self._converter.convert(frame, self._format)
        stamp = round(pts * time_base / self._time_base)
        if self._last is not None:
            stamp = max(stamp, self._last + 1)
        self._last = frame.pts = stamp
        frame.time_base = self._time_base
        # The decoder's picture types would otherwise be forced on the encoder.
        frame.pict_type = 0
        self._durations[stamp] = round(duration * time_base / self._time_base)
        self._mux(self.stream.encode(frame))

    def flush(self) -> None:
        self._mux(self.stream.encode(None))

    def _mux(self, packets: list[av.Packet[Any]]) -> None:
        for packet in packets:
            duration = self._durations.pop(packet.pts, 0) if packet.pts is not None else 0
            if duration:
                packet.duration = duration
            self._container.mux_one(packet)


def _open_container(hidden: Path, path: Path) -> av.container.OutputContainer:
    try:
        return av.open(str(hidden), "w")
    except ValueError as error:
        raise InputError(
            f"--output: {path} has no suffix that names a video format; expected .mp4, .mov, "
            ".mkv, .webm or .avi"
        ) from error


def _name_output(step: Callable[[], Result], path: Path) -> Result:
    """Run a step; FFmpeg's errors name the final path and are ordinary OSErrors."""
    try:
        return step()
    except av.FFmpegError as error:
        code = error.errno if error.errno in errno.errorcode else errno.EIO
        assert code is not None
        reason = os.strerror(code) if code != errno.EIO else str(error.strerror)
        raise OSError(code, f"cannot write the video: {reason}", str(path)) from error


def _close_quietly(container: av.container.OutputContainer) -> None:
    """After a failure the trailer may fail too; the file is removed anyway."""
    with suppress(av.FFmpegError, OSError, ValueError):
        container.close()


def _check_fill(frame: Frame, fill: Rgb, mask: Mask) -> None:
    shape, dtype = frame.rgb.shape, frame.rgb.dtype
    if fill.shape != shape or fill.dtype != dtype or mask.shape != shape[:2]:
        raise ValueError(
            f"fill and mask: expected {dtype} {shape} and {shape[:2]}, got "
            f"{fill.dtype} {fill.shape} and {mask.shape}"
        )
