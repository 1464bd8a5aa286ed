# SPDX-License-Identifier: Apache-2.0
"""Audio, subtitles and the rest of a video file, carried over without decoding them."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import av

from vinpaint.errors import InputWarning

if TYPE_CHECKING:
    from pathlib import Path

# Entries that describe the old file, not its content.
_STALE = ("encoder", "major_brand", "minor_version", "compatible_brands", "rotate", "duration")
_STALE_PREFIXES = ("_statistics", "number_of_", "bps")


class Passthrough:
    """Copies packets of a source file into an output, in step with the video being written.

    Use: :meth:`add_streams` before the first packet, then :meth:`advance` as time goes on, at
    last :meth:`finish`. Memory does not grow with the length of the file.
    """

    def __init__(
        self, source: Path, video_index: int, output: av.container.OutputContainer
    ) -> None:
        self._source = av.open(str(source))
        self._video_index = video_index
        self._output = output
        self._streams: dict[int, av.stream.Stream] = {}
        self._last_dts: dict[int, int] = {}
        self._packets = self._source.demux()
        self._waiting: av.Packet[av.stream.Stream] | None = None

    def add_streams(self, video: av.VideoStream) -> None:
        """Declare the copied streams, and give ``video`` the source's metadata."""
        self._output.metadata.update(_kept(self._source.metadata))
        chapters = self._source.chapters()
        if chapters:
            self._output.set_chapters(chapters)
        left_out = []
        for stream in self._source.streams:
            if stream.index == self._video_index:
                video.metadata.update(_kept(stream.metadata))
                video.disposition = stream.disposition
            elif stream.type == "data" and chapters:
                continue  # MP4 keeps chapter titles in a stream too; it is written anew
            elif not self._add(stream):
                left_out.append(f"#{stream.index} ({stream.type}, {stream.name or 'unknown'})")
        if left_out:
            plural = "s" if len(left_out) > 1 else ""
            warnings.warn(
                f"a {self._output.format.name} file cannot hold the stream{plural} "
                f"{', '.join(left_out)} of {self._source.name}; left out (a .mkv output holds "
                "most kinds)",
                InputWarning,
                stacklevel=2,
            )

    def _add(self, stream: av.stream.Stream) -> bool:
        try:
            if isinstance(stream, av.stream.AttachmentStream):
                name = stream.name or f"attachment-{stream.index}"
                self._output.add_attachment(name, stream.mimetype or "", stream.data)
                return "matroska" in self._output.format.name
            context: Any = stream.codec_context
            if context is None or context.name not in self._output.supported_codecs:
                return False
            copy = self._output.add_stream_from_template(stream, opaque=True)
        except (ValueError, av.FFmpegError):
            return False
        copy.metadata.update(_kept(stream.metadata))
        copy.disposition = stream.disposition
        self._streams[stream.index] = copy
        return True

    def advance(self, seconds: float) -> None:
        """Copy the packets that are due up to ``seconds`` of the source's clock."""
        if not self._streams:
            return
        while (packet := self._waiting or next(self._packets, None)) is not None:
            copy = self._streams.get(packet.stream.index)
            stamp = packet.dts if packet.dts is not None else packet.pts
            if copy is None or stamp is None:
                self._waiting = None
                continue
            if float(stamp * packet.time_base) > seconds:
                self._waiting = packet
                return
            self._waiting = None
            self._mux(packet, copy)

    def finish(self) -> None:
        """Copy the packets that are left."""
        self.advance(float("inf"))

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def _mux(self, packet: av.Packet[av.stream.Stream], copy: av.stream.Stream) -> None:
        # Containers refuse decoding stamps that run backwards, as some old files have.
        index = packet.stream.index
        if packet.dts is not None:
            last = self._last_dts.get(index)
            if last is not None and packet.dts <= last:
                packet.dts = last + 1
                packet.pts = max(packet.pts or 0, packet.dts)
            self._last_dts[index] = packet.dts
        packet.stream = copy
        self._output.mux_one(packet)


def _kept(metadata: dict[str, str]) -> dict[str, str]:
    return {
        key: value
        for key, value in metadata.items()
        if key.lower() not in _STALE and not key.lower().startswith(_STALE_PREFIXES)
    }
