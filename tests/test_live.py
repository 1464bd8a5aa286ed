# SPDX-License-Identifier: Apache-2.0
"""Streams between real programs: frames, order and time stamps; sources that stall, change, break off, come back."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import media
import numpy as np
import pytest

from vinpaint.errors import InputError
from vinpaint.inpainting import Inpainter
from vinpaint.live import Statistics, fixed_mask, stream_video
from vinpaint.nn import InpainterConfig, VideoInpainter
from vinpaint.streaming import Streamer
from vinpaint.video.masks import parse_box
from vinpaint.video.reader import open_clip

FRAMES, HEIGHT, WIDTH = 20, 48, 64

# Not from the source folder, where Python would find the sources.
STREAM = [
    sys.executable,
    "-c",
    "import sys; from vinpaint.cli import main; sys.exit(main())",
    "stream",
]


@pytest.fixture(scope="module")
def ffmpeg() -> str:
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    return str(imageio_ffmpeg.get_ffmpeg_exe())


def _write(path: Path, height: int = HEIGHT, width: int = WIDTH, frames: int = FRAMES) -> Path:
    """Frame t is as bright as 10 + 10 t, so that a recording says which frames it holds."""
    with av.open(path, "w") as container:
        stream: Any = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.options = {"bf": "0", "g": "1", "crf": "1"}
        for t in range(frames):
            image = np.full((height, width, 3), 10 + 10 * t, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write(tmp_path_factory.mktemp("video") / "in.ts")


def _recorded(path: Path) -> tuple[list[int], list[float]]:
    """Which frames are in a recording, by their brightness outside the hole, and when they are shown."""
    with av.open(path) as container:
        frames = list(container.decode(video=0))
    numbers = [round((f.to_ndarray(format="rgb24")[-8:].mean() - 10) / 10) for f in frames]
    times = [float(f.pts * f.time_base) for f in frames]
    return numbers, [t - times[0] for t in times]


def _streamer(lookahead: int = 2, wait: float = 0.0) -> Callable[[int, int], Streamer]:
    """Networks that add nothing to a smooth fill; ``wait``: what a frame takes, in seconds."""
    model = VideoInpainter(InpainterConfig(prefill="smooth", width=0.125))
    inpainter = Inpainter(model, propagate="off")

    class Slow(Streamer):
        def push(self, *args: Any) -> Any:
            time.sleep(wait)
            return super().push(*args)

    def make(height: int, width: int) -> Streamer:
        hole = fixed_mask(height, width, None, [parse_box("8,8,16,12")])
        return Slow(inpainter, lookahead=lookahead, mask=hole)

    return make


def test_between_two_ffmpegs(ffmpeg: str, video: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mkv"
    raw = ["-f", "nut", "-c:v", "rawvideo", "-pix_fmt", "rgb24", "-"]
    sender = subprocess.Popen(
        [ffmpeg, "-v", "error", "-re", "-i", str(video), *raw], stdout=subprocess.PIPE
    )
    options = ["--box", "8,8,16,12", "--weights", "combcn-s", "--lookahead", "3"]
    filler = subprocess.Popen(
        [*STREAM, "-", "-o", "-", *options],
        cwd=tmp_path,
        stdin=sender.stdout,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    recorder = subprocess.Popen(
        [ffmpeg, "-v", "error", "-i", "-", "-c:v", "ffv1", str(out)], stdin=filler.stdout
    )
    assert sender.stdout is not None
    assert filler.stdout is not None
    assert filler.stderr is not None
    sender.stdout.close()
    filler.stdout.close()
    with filler.stderr as messages:
        last = messages.read().decode().splitlines()[-1]
    assert [process.wait(60) for process in (sender, filler, recorder)] == [0, 0, 0]
    numbers, times = _recorded(out)
    assert numbers == list(range(FRAMES))
    assert times == pytest.approx([t / 10 for t in range(FRAMES)], abs=1e-3)
    with av.open(out) as container:
        assert container.streams.video[0].average_rate == 10
    assert re.fullmatch(
        r"20 frames, [\d.]+ frames/s, latency p50 \d+, p95 \d+, p99 \d+ ms, 0 dropped, 0 held", last
    )


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_over_udp(ffmpeg: str, video: Path, tmp_path: Path) -> None:
    address, out = f"udp://127.0.0.1:{_free_port()}", tmp_path / "out.mkv"
    pushed = [ffmpeg, "-v", "error", "-re", "-i", str(video)]
    sender = threading.Timer(
        1.0, lambda: subprocess.run([*pushed, "-c", "copy", "-f", "mpegts", address], check=True)
    )
    sender.start()
    statistics = stream_video(address, str(out), _streamer(), timeout=3.0)
    sender.join()
    numbers, _ = _recorded(out)
    assert statistics.frames == len(numbers) > FRAMES - 3
    assert (np.diff(numbers) == 1).all()
    assert np.diff(_recorded(out)[1]) == pytest.approx(0.1, abs=1e-3)


def test_a_file_comes_out_frame_by_frame(video: Path, tmp_path: Path) -> None:
    told: list[Statistics] = []
    statistics = stream_video(
        str(video), str(tmp_path / "out.mkv"), _streamer(), realtime=True, told=told.append
    )
    assert _recorded(tmp_path / "out.mkv")[0] == list(range(FRAMES))
    assert 1.7 < statistics.seconds < 6  # no faster than it plays
    assert told
    latencies = np.array(statistics.latencies)
    assert len(latencies) == FRAMES
    assert 0.19 < np.median(latencies) < 1  # two frames of look-ahead at ten frames a second


@pytest.mark.parametrize("late", ["queue", "drop", "hold"])
def test_when_frames_come_too_fast(late: Any, video: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mkv"
    statistics = stream_video(str(video), str(out), _streamer(wait=0.05), late=late)
    numbers, times = _recorded(out)
    assert (np.diff(times) > 0).all()
    if late == "queue":
        assert numbers == list(range(FRAMES))
        assert (statistics.dropped, statistics.held) == (0, 0)
        return
    assert statistics.dropped > 0
    assert statistics.frames + statistics.dropped == FRAMES
    assert numbers[-1] == FRAMES - 1
    if late == "drop":
        assert statistics.held == 0
        assert len(numbers) == statistics.frames
        assert (np.diff(numbers) > 0).all()
    else:
        assert len(numbers) == FRAMES
        assert statistics.held == statistics.dropped
        assert (np.diff(numbers) >= 0).all()
        assert times == pytest.approx([t / 10 for t in range(FRAMES)], abs=1e-3)


def _filler(*options: str) -> subprocess.Popen[bytes]:
    """From standard input to standard output."""
    hole = ["--box", "8,8,16,12", "--weights", "combcn-s", "--propagate", "off"]
    return subprocess.Popen(
        [*STREAM, "-", "-o", "-", *hole, *options],
        cwd=tempfile.gettempdir(),
        # Whoever runs the tests in the background may have it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def _read(file: Any, count: int) -> bytes:
    """So many bytes of a pipe, or fewer after half a minute."""
    content, until = b"", time.monotonic() + 30
    while len(content) < count and time.monotonic() < until:
        if select.select([file], [], [], 0.1)[0]:
            content += os.read(file.fileno(), 1 << 16)
    return content


def test_a_source_that_is_joined_between_two_key_frames_begins_at_the_next(tmp_path: Path) -> None:
    whole = media.write_video(
        tmp_path / "a.ts", frames=200, options={"g": "100", "bf": "0", "sc_threshold": "0"}
    )
    content = whole.read_bytes()
    filler = _filler("--lookahead", "0", "--input-format", "mpegts")
    sent, _ = filler.communicate(content[188 * (len(content) // 188 // 8) :], timeout=120)
    assert filler.returncode == 0
    (tmp_path / "out.nut").write_bytes(sent)
    frames = [frame.rgb.astype(int) for frame in open_clip(tmp_path / "out.nut").frames()]
    assert len(frames) == 100
    assert abs(frames[0] - media.scene(100, 64, 48))[24:].mean() < 6  # below the hole


def test_an_mp4_in_a_pipe_whose_index_comes_last_is_a_sentence(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (10, 240, 320, 3), np.uint8)
    path = media.write_video(tmp_path / "a.mp4", frames=10, size=(320, 240), pictures=list(noise))
    with path.open("rb") as source:
        words = [*STREAM, "-", "-o", "-", "--box", "8,8,16,12", "--weights", "combcn-s"]
        ran = subprocess.run(
            words, cwd=tmp_path, stdin=source, capture_output=True, text=True, check=False
        )
    assert ran.returncode == 2
    assert "-: an MP4 or MOV whose index is at its end cannot" in ran.stderr
    assert ran.stdout == ""


def test_a_source_that_stalls_is_waited_for(video: Path, tmp_path: Path) -> None:
    content, out = video.read_bytes(), tmp_path / "out.nut"
    filler = _filler("--lookahead", "0", "--input-format", "mpegts")
    assert filler.stdin is not None
    assert filler.stdout is not None
    with filler.stdin as source, filler.stdout as sink:
        source.write(content)
        source.flush()
        # What has come goes out, whether more comes or not.
        most = (FRAMES - 8) * HEIGHT * WIDTH * 3 // 2  # raw, yuv420p
        recorded = _read(sink, most)
        assert len(recorded) >= most
        source.write(content)
        source.close()
        out.write_bytes(recorded + sink.read())
    assert filler.wait(60) == 0
    assert _recorded(out)[0] == [*range(FRAMES), *range(FRAMES)]


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_or_a_services_end_ends_a_stream_that_stalls(
    end: signal.Signals, video: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.nut"
    filler = _filler("--lookahead", "2", "--input-format", "mpegts")
    assert filler.stdin is not None
    assert filler.stdout is not None
    with filler.stdin as source, filler.stdout as sink:
        source.write(video.read_bytes())
        source.flush()
        recorded = _read(sink, (FRAMES - 10) * HEIGHT * WIDTH * 3 // 2)  # it is under way
        time.sleep(1)  # and nothing more comes
        filler.send_signal(end)
        out.write_bytes(recorded + sink.read())
    assert filler.wait(60) == 0
    numbers = _recorded(out)[0]
    assert len(numbers) > FRAMES - 3  # a decoder may keep the last one until more comes
    assert numbers == list(range(len(numbers)))


def test_frames_without_time_stamps_are_as_far_apart_as_the_rate_says(
    ffmpeg: str, video: Path, tmp_path: Path
) -> None:
    raw, out = tmp_path / "raw.h264", tmp_path / "out.mkv"
    subprocess.run([ffmpeg, "-v", "error", "-i", video, "-c", "copy", raw], check=True)
    stream_video(str(raw), str(out), _streamer())
    numbers, times = _recorded(out)
    assert numbers == list(range(FRAMES))
    assert np.diff(times) == pytest.approx(times[1] - times[0], abs=2e-3)
    assert times[1] - times[0] > 0.01


def test_frames_of_another_size_are_brought_to_the_firsts(tmp_path: Path, video: Path) -> None:
    larger = _write(tmp_path / "larger.ts", 2 * HEIGHT, 2 * WIDTH)
    both, out = tmp_path / "both.ts", tmp_path / "out.mkv"
    both.write_bytes(video.read_bytes() + larger.read_bytes())
    stream_video(str(both), str(out), _streamer())
    numbers, times = _recorded(out)
    assert numbers == [*range(FRAMES), *range(FRAMES)]
    assert (np.diff(times) > 0).all()


def test_a_source_that_breaks_off_gives_what_came_before(tmp_path: Path, video: Path) -> None:
    content = video.read_bytes()
    broken, out = tmp_path / "broken.ts", tmp_path / "out.mkv"
    broken.write_bytes(content[: int(0.6 * len(content))])
    statistics = stream_video(str(broken), str(out), _streamer())
    numbers = _recorded(out)[0]
    assert 5 < statistics.frames == len(numbers) < FRAMES
    assert numbers[:-1] == list(range(len(numbers) - 1))


def test_a_source_that_comes_back_goes_on(video: Path, tmp_path: Path) -> None:
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for _ in range(2):
            connection, _ = server.accept()
            with connection:
                connection.sendall(video.read_bytes())
        server.close()

    thread = threading.Thread(target=serve)
    thread.start()
    address, out = f"tcp://127.0.0.1:{server.getsockname()[1]}", tmp_path / "out.mkv"
    stream_video(address, str(out), _streamer(), source_format="mpegts", reconnect=1.0)
    thread.join()
    numbers, times = _recorded(out)
    assert numbers == [*range(FRAMES), *range(FRAMES)]
    assert (np.diff(times) > 0).all()


def test_an_address_that_was_listened_to_can_be_again(
    ffmpeg: str, video: Path, tmp_path: Path
) -> None:
    address, out = f"udp://127.0.0.1:{_free_port()}", tmp_path / "out.mkv"
    pushed = [ffmpeg, "-v", "error", "-re", "-i", str(video), "-c", "copy", "-f", "mpegts", address]

    def send() -> None:
        for pause in (1, 5):
            time.sleep(pause)
            subprocess.run(pushed, check=True)

    sender = threading.Thread(target=send)
    sender.start()
    statistics = stream_video(address, str(out), _streamer(), timeout=2.5, reconnect=8.0)
    sender.join()
    numbers, times = _recorded(out)
    assert statistics.frames == len(numbers) > 2 * (FRAMES - 3)
    assert (np.diff(times) > 0).all()


def test_a_reader_that_goes_away_is_a_sentence(video: Path) -> None:
    filler = subprocess.Popen(
        [*STREAM, video, "-o", "-", "--box", "8,8,16,16", "--propagate", "off"],
        cwd=tempfile.gettempdir(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert filler.stdout is not None
    assert filler.stderr is not None
    filler.stdout.close()
    with filler.stderr:
        said = filler.stderr.read()
    assert filler.wait(60) == 2
    assert "standard output: whoever reads it has closed it" in said
    assert "Traceback" not in said


def test_bad_input_is_a_sentence(video: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out.mkv")
    with pytest.raises(InputError, match="--late: expected queue, drop or hold, got 'skip'"):
        stream_video(str(video), out, _streamer(), late="skip")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="--reconnect: expected an address or a device, got "):
        stream_video(str(video), out, _streamer(), reconnect=1.0)
    with pytest.raises(InputError, match="is the input"):
        stream_video(str(video), str(video), _streamer(), overwrite=True)
    (tmp_path / "there.mkv").touch()
    with pytest.raises(InputError, match=r"there\.mkv exists; --overwrite replaces it"):
        stream_video(str(video), str(tmp_path / "there.mkv"), _streamer())
    stream_video(str(video), str(tmp_path / "there.mkv"), _streamer(), overwrite=True)
    with pytest.raises(InputError, match=r"nowhere\.mp4: cannot be opened as a video: No such"):
        stream_video("nowhere.mp4", out, _streamer())
    with pytest.raises(InputError, match="cannot be written"):
        stream_video(str(video), str(tmp_path / "no" / "where.mkv"), _streamer())
    with pytest.raises(InputError, match="cannot be written"):
        stream_video(str(video), out, _streamer(), codec="nonsense")
    with pytest.raises(InputError, match="--box: 60,0,10,10 is not wholly inside the frame"):
        fixed_mask(48, 64, None, [parse_box("60,0,10,10")])
    with pytest.raises(InputError, match="--box: a stream's hole is fixed; expected no times"):
        fixed_mask(48, 64, None, [parse_box("6,0,10,10@1s-2s")])
    with pytest.raises(InputError, match=r"fixed; expected a picture, got mask\.mkv"):
        fixed_mask(48, 64, "mask.mkv", [])
    picture = tmp_path / "mask.png"
    av.VideoFrame.from_ndarray(np.full((8, 8, 3), 255, np.uint8), format="rgb24").to_image().save(
        picture
    )
    with pytest.raises(InputError, match=r"mask\.png is 8 x 8, but the clip is shown at 64 x 48"):
        fixed_mask(48, 64, picture, [])
    assert (fixed_mask(48, 64, picture, [], resize=True) == 255).all()
    with pytest.raises(InputError, match="--mask: expected a hole, white on black, got none"):
        fixed_mask(48, 64, None, [])
    assert (fixed_mask(8, 8, picture, []) == 255).all()
