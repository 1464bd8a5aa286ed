# SPDX-License-Identifier: Apache-2.0
"""How well a logo is found by itself: known logos drawn into real clips, masks compared.

``python benchmarks/find_logo.py FOLDER -o OUT.md`` draws each design into each clip of the folder
and of its subfolders (videos, or folders of frames), every second one semi-transparent, finds it,
and reports IoU; on the clips as they are, and on those of ``--without FOLDER``, it reports what is
found though nothing was drawn. OUT.md is a table; beside it lie OUT.png (a plot) and OUT-sheet.png
(pictures). Seeded: two runs agree.

``--moving N`` draws into N clips only, taken by a rule that does not ask the finder: in the natural
order of the folder, the first clip of each subfolder that has 64 frames or more and whose content
moves, as ``movement`` measures it. ``--except TEXT ...`` leaves out clips whose path has TEXT in it,
for those that show a logo already.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from vinpaint.errors import InputError
from vinpaint.masking.logo import find_logo
from vinpaint.video.images import eight_bit
from vinpaint.video.reader import open_clip

Picture = npt.NDArray[np.uint8]

FRAMES = 100  # read from a clip, spread over it
FINE = 4  # a logo is drawn this many times larger, then made small
JPEG_QUALITY = 85  # frames are coded after the logo is drawn in, as a video's would be
ALPHAS = (0.35, 0.45, 0.55)  # of a semi-transparent logo
STAMP = "time stamp"
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")

# What counts as a clip whose content moves.
MOVES = 0.8  # share of its textured pixels around which something else is shown in half the frames
LEAST_FRAMES = 64
CHANGE = 10.0  # grey levels from the clip's median, in the mean of a window
WINDOW = 15  # pixels across, of a frame at most 320 wide and high
TEXTURE = 5.0  # mean gradient, in grey levels a pixel

CORNERS = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0))
ELSEWHERE = ((0.5, 0.0), (0.5, 1.0), (0.5, 0.4), (0.0, 0.5), (1.0, 0.55))


def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(max(6.0, size))


def _text(words: str, height: int, *, stroke: float = 0.0) -> Image.Image:
    """A line of white text, with a black outline of ``stroke`` of its height; RGBA."""
    font = _font(height)
    width = round(stroke * height)
    box = ImageDraw.Draw(Image.new("L", (1, 1))).textbbox((0, 0), words, font, stroke_width=width)
    size = (int(box[2] - box[0]) + 2, int(box[3] - box[1]) + 2)
    picture = Image.new("RGBA", size, (255, 255, 255, 0) if not width else (0, 0, 0, 0))
    ImageDraw.Draw(picture).text(
        (1 - box[0], 1 - box[1]),
        words,
        (245, 245, 245, 255),
        font,
        stroke_width=width,
        stroke_fill=(10, 10, 10, 255),
    )
    return picture


def _plain_text(height: int, _second: int) -> Image.Image:
    return _text("VISTA TV", round(0.9 * height))


def _outlined_text(height: int, _second: int) -> Image.Image:
    return _text("aurora", round(0.9 * height), stroke=0.06)


def _ring_star(height: int, _second: int) -> Image.Image:
    size = round(1.5 * height)
    picture = Image.new("RGBA", (size, size), (255, 220, 60, 0))
    draw = ImageDraw.Draw(picture)
    color = (255, 220, 60, 255)
    draw.ellipse((0, 0, size - 1, size - 1), outline=color, width=max(2, size // 9))
    angles = np.arange(10) * np.pi / 5 - np.pi / 2
    radii = np.where(np.arange(10) % 2, 0.14, 0.34) * size
    star = [
        (size / 2 + r * np.cos(a), size / 2 + r * np.sin(a))
        for r, a in zip(radii, angles, strict=True)
    ]
    draw.polygon(star, fill=color)
    return picture


def _badge(height: int, _second: int) -> Image.Image:
    words = _text("NEWS 24", round(0.7 * height))
    size = (words.width + height, round(1.5 * height))
    picture = Image.new("RGBA", size, (190, 20, 40, 0))
    ImageDraw.Draw(picture).rounded_rectangle(
        (0, 0, size[0] - 1, size[1] - 1), radius=height // 3, fill=(190, 20, 40, 255)
    )
    at = ((size[0] - words.width) // 2, (size[1] - words.height) // 2)
    picture.alpha_composite(words, at)
    return picture


def _outlined_box(height: int, _second: int) -> Image.Image:
    words = _text("LIVE", round(0.8 * height))
    size = (words.width + height, round(1.6 * height))
    picture = Image.new("RGBA", size, (255, 255, 255, 0))
    draw = ImageDraw.Draw(picture)
    draw.rectangle(
        (0, 0, size[0] - 1, size[1] - 1), outline=(240, 240, 240, 255), width=max(2, height // 8)
    )
    at = ((size[0] - words.width) // 2, (size[1] - words.height) // 2)
    picture.alpha_composite(words, at)
    return picture


def _bug(height: int, _second: int) -> Image.Image:
    size = round(1.6 * height)
    picture = Image.new("RGBA", (size, size), (30, 60, 200, 0))
    ImageDraw.Draw(picture).ellipse((0, 0, size - 1, size - 1), fill=(30, 60, 200, 255))
    digit = _text("7", round(1.2 * height))
    at = ((size - digit.width) // 2, (size - digit.height) // 2)
    picture.alpha_composite(digit, at)
    return picture


def _stamp(height: int, second: int) -> Image.Image:
    moment = 14 * 3600 + 3 * 60 + 21 + second
    words = f"2024-05-17 {moment // 3600:02}:{moment // 60 % 60:02}:{moment % 60:02}"
    # One width for all: digits of a camera's stamp stay in their places.
    glyphs = [_text(letter, round(0.75 * height), stroke=0.05) for letter in "0123456789:- "]
    cell = max(glyph.width for glyph in glyphs)
    tall = max(glyph.height for glyph in glyphs)
    picture = Image.new("RGBA", (cell * len(words), tall), (0, 0, 0, 0))
    for place, letter in enumerate(words):
        glyph = glyphs["0123456789:- ".index(letter)]
        if letter != " ":
            drop = tall - glyph.height if letter not in ":-" else (tall - glyph.height) // 2
            picture.paste(glyph, (place * cell + (cell - glyph.width) // 2, drop))
    return picture


DESIGNS = {
    "text": _plain_text,
    "outlined text": _outlined_text,
    "ring and star": _ring_star,
    "badge": _badge,
    "outlined box": _outlined_box,
    "bug": _bug,
    STAMP: _stamp,
}


@dataclass(frozen=True)
class Drawing:
    """One logo in one clip."""

    design: str
    place: tuple[float, float]
    height: float  # of the letters, as a share of the frame's shorter side
    alpha: float

    @classmethod
    def choose(cls, design: str, clip: str, number: int) -> Drawing:
        """A place, size and opacity drawn by lot, the same at every run; odd numbers let through."""
        lot = np.random.default_rng(zlib.crc32(f"{clip} {design}".encode()))
        places = CORNERS if lot.random() < 0.7 else ELSEWHERE
        place = places[lot.integers(len(places))]
        alpha = float(lot.choice(ALPHAS)) if number % 2 else 1.0
        return cls(design, place, float(lot.uniform(0.055, 0.085)), alpha)

    def layer(self, shape: tuple[int, int], second: int) -> npt.NDArray[np.float32]:
        """Colour (0 to 255) and opacity (0 to 1) as the frame is large: float32 (H, W, 4)."""
        height, width = shape
        letters = max(12, round(self.height * min(shape)))
        fine = DESIGNS[self.design](FINE * letters, second)
        size = (max(1, fine.width // FINE), max(1, fine.height // FINE))
        if size[0] > 0.8 * width:
            size = (round(0.8 * width), max(1, round(size[1] * 0.8 * width / size[0])))
        small = np.asarray(fine.resize(size, Image.Resampling.BOX), np.float32)
        margin = round(0.04 * min(shape))
        left = margin + round(self.place[0] * max(0, width - 2 * margin - size[0]))
        top = margin + round(self.place[1] * max(0, height - 2 * margin - size[1]))
        layer = np.zeros((*shape, 4), np.float32)
        layer[top : top + size[1], left : left + size[0]] = small
        layer[..., 3] *= self.alpha / 255
        return layer

    def draw(
        self, frames: list[Picture], times: list[float]
    ) -> tuple[list[Picture], npt.NDArray[np.bool_]]:
        """The frames with the logo, coded; and where it ever was, bool (H, W)."""
        height, width = frames[0].shape[:2]
        truth = np.zeros((height, width), bool)
        layers: dict[int, npt.NDArray[np.float32]] = {}
        drawn = []
        for frame, moment in zip(frames, times, strict=True):
            second = int(moment) if self.design == STAMP else 0
            if second not in layers:
                layers = {second: self.layer((height, width), second)}
            layer = layers[second]
            alpha = layer[..., 3:]
            truth |= alpha[..., 0] > 0
            mixed = (1 - alpha) * frame + alpha * layer[..., :3]
            drawn.append(_coded(np.clip(np.rint(mixed), 0, 255).astype(np.uint8)))
        return drawn, truth


def _coded(rgb: Picture) -> Picture:
    _, code = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), np.uint8)[..., ::-1]


@dataclass(frozen=True)
class Result:
    """A logo that was drawn, and what was found of it."""

    clip: str
    drawing: Drawing
    iou: float
    covered: float  # of the logo
    seconds: float
    picture: Picture  # found outlined red, drawn outlined green


@dataclass(frozen=True)
class Without:
    """A clip as it is."""

    clip: str
    found: float  # share of the frame
    seconds: float  # in find_logo
    frames: int


def read(path: Path) -> tuple[list[Picture], list[float]]:
    """Up to FRAMES frames (H, W, 3) uint8, spread over the clip, and their times in seconds."""
    clip = open_clip(path, allow_truncated=True)
    count = clip.frame_count or sum(1 for _ in clip.thumbnails(64))
    wanted = set(np.linspace(0, count - 1, min(count, FRAMES)).round().astype(int).tolist())
    taken = [frame for frame in clip.frames() if frame.index in wanted]
    return [eight_bit(frame.rgb) for frame in taken], [frame.time for frame in taken]


def movement(frames: list[Picture]) -> float:
    """Share of textured pixels around which at least half of the frames differ from the median.

    0 where nothing moves, 1 where all does; of every second frame.
    """
    scale = min(1.0, 320 / max(frames[0].shape[:2]))
    size = (round(scale * frames[0].shape[1]), round(scale * frames[0].shape[0]))
    small = [
        cv2.cvtColor(cv2.resize(f, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
        for f in frames[::2]
    ]
    usual = np.median(small, axis=0).astype(np.float32)
    often, gradient = np.zeros_like(usual), np.zeros_like(usual)
    for picture in small:
        often += cv2.blur(np.abs(picture - usual), (WINDOW, WINDOW)) > CHANGE
        smooth = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), 0.8)
        across, down = (cv2.Sobel(smooth, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
        gradient += cv2.magnitude(across, down) / 4
    textured = gradient > TEXTURE * len(small)
    return float((often[textured] >= len(small) / 2).mean()) if textured.any() else 0.0


def moving_clips(folder: Path, number: int, left_out: list[str]) -> list[Path]:
    """The first ``number`` clips that move, one of each subfolder."""
    chosen: list[Path] = []
    for source in _in_order(folder):
        for path in clips_in(source, left_out):
            try:
                frames, _ = read(path)
            except InputError:
                continue
            if len(frames) < LEAST_FRAMES:
                continue
            moves = movement(frames)
            print(f"{source.name}/{path.name}: {moves:.2f} moves", flush=True)
            if moves >= MOVES:
                chosen.append(path)
                break
        if len(chosen) == number:
            break
    return chosen


def measure(clip: str, drawing: Drawing, frames: list[Picture], times: list[float]) -> Result:
    drawn, truth = drawing.draw(frames, times)
    start = time.perf_counter()
    found = find_logo(drawn) > 0
    seconds = time.perf_counter() - start
    both = np.count_nonzero(found & truth)
    iou = both / np.count_nonzero(found | truth)
    return Result(
        clip,
        drawing,
        iou,
        both / np.count_nonzero(truth),
        seconds,
        _shown(drawn[len(drawn) // 2], found, truth, f"{iou:.2f}"),
    )


def _shown(
    frame: Picture, found: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_], label: str
) -> Picture:
    """The logo's surroundings, outlined, 240 x 120."""
    width, height = 240, 120
    rows, columns = np.nonzero(truth)
    scale = min(width / (np.ptp(columns) + 40), height / (np.ptp(rows) + 40))
    shift = np.array([np.ptp(columns) / 2 + columns.min(), np.ptp(rows) / 2 + rows.min()])
    offset = np.array([width, height]) / 2 - scale * shift
    move = np.array([[scale, 0, offset[0]], [0, scale, offset[1]]])
    picture = cv2.warpAffine(frame, move, (width, height))
    for mask, color in ((truth, (0, 255, 90)), (found, (255, 40, 60))):
        moved = cv2.warpAffine(255 * mask.astype(np.uint8), move, (width, height))
        outlines, _ = cv2.findContours(
            (moved > 127).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE
        )
        cv2.drawContours(picture, outlines, -1, color, 1)
    cv2.putText(picture, label, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 0), 1)
    return np.asarray(picture, np.uint8)


def table(results: list[Result], without: list[Without], moves: dict[str, float]) -> str:
    """Markdown: IoU of each clip and design, then what was found where nothing was drawn."""
    names = list(DESIGNS)
    lines = ["# Logos found", ""]
    if results:
        lines += [
            "IoU against every pixel that the logo touches; `s`: semi-transparent, with its opacity.",
            f"Means are of all but the {STAMP}s.",
            "",
            "| clip | moves | " + " | ".join(names) + " | mean |",
            "|---" * (len(names) + 3) + "|",
        ]
        for clip in dict.fromkeys(result.clip for result in results):
            of_clip = {r.drawing.design: r for r in results if r.clip == clip}
            mean = statistics.mean(r.iou for r in of_clip.values() if r.drawing.design != STAMP)
            cells = [f"{moves[clip]:.2f}", *(_cell(of_clip[name]) for name in names)]
            lines.append(f"| {clip} | " + " | ".join(cells) + f" | {mean:.2f} |")
        lines += [
            "",
            "| | logos | mean IoU | median | 0.7 or more | mean share covered |",
            "|---" * 6 + "|",
        ]
        logos = [r for r in results if r.drawing.design != STAMP]
        for title, some in (
            ("opaque", [r for r in logos if r.drawing.alpha == 1]),
            ("semi-transparent", [r for r in logos if r.drawing.alpha < 1]),
            ("both", logos),
            (f"{STAMP}s", [r for r in results if r.drawing.design == STAMP]),
        ):
            if some:
                ious = [r.iou for r in some]
                good = sum(iou >= 0.7 for iou in ious)
                covered = statistics.mean(r.covered for r in some)
                lines.append(
                    f"| {title} | {len(some)} | {statistics.mean(ious):.3f} "
                    f"| {statistics.median(ious):.3f} | {good} | {covered:.3f} |"
                )
        lines.append("")
    false = [clip for clip in without if clip.found]
    lines.append(f"Without a logo: {len(without)} clips, something found in {len(false)}.")
    lines += [f"- {clip.clip}: {100 * clip.found:.2f} % of the frame" for clip in false]
    if without:
        pace = sum(c.seconds for c in without) / sum(c.frames for c in without)
        lines += ["", f"{1000 * pace:.1f} ms a frame in the mean, on these clips' sizes."]
    return "\n".join(lines) + "\n"


def _cell(result: Result) -> str:
    alpha = result.drawing.alpha
    return f"{result.iou:.2f}" + (f" s {alpha:.2f}" if alpha < 1 else "")


def plot(results: list[Result], path: Path) -> None:
    """IoU of every logo, by design; opaque and semi-transparent apart."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 4.2), layout="constrained")
    names = list(DESIGNS)
    for title, opaque, color, shift in (
        ("opaque", True, "#1f5fa8", -0.12),
        ("semi-transparent", False, "#d9822b", 0.12),
    ):
        some = [r for r in results if (r.drawing.alpha == 1) == opaque]
        places = [names.index(r.drawing.design) + shift for r in some]
        axes.plot(places, [r.iou for r in some], "o", color=color, alpha=0.7, label=title)
    axes.axhline(0.7, color="0.5", linewidth=1, linestyle="--")
    axes.set(xticks=range(len(names)), xticklabels=names, ylim=(-0.03, 1.03), ylabel="IoU")
    axes.set_title("Logos drawn into clips, and what is found of them")
    figure.legend(loc="outside right upper")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def sheet(results: list[Result], path: Path) -> None:
    """A row a clip, a column a design."""
    rows = []
    for clip in dict.fromkeys(result.clip for result in results):
        rows.append(np.hstack([r.picture for r in results if r.clip == clip]))
    Image.fromarray(np.vstack(rows)).save(path)


def clips_in(path: Path, left_out: list[str]) -> list[Path]:
    """What may be a clip, here and below: files, and folders of frames."""
    if any(text in str(path) for text in left_out):
        return []
    if not path.is_dir() or any(p.suffix.lower() in PICTURES for p in path.iterdir()):
        return [path]
    return [clip for inner in _in_order(path) for clip in clips_in(inner, left_out)]


def _in_order(folder: Path) -> list[Path]:
    """What lies in a folder, in natural order: 9 before 10."""
    paths = [path for path in folder.iterdir() if not path.name.startswith(".")]
    return sorted(paths, key=lambda p: [(len(t), t) if t.isdigit() else (0, t) for t in _parts(p)])


def _parts(path: Path) -> list[str]:
    return re.split(r"(\d+)", path.name)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="clips to draw logos into")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the table, OUT.md")
    parser.add_argument("--moving", type=int, metavar="N", help="only the first N clips that move")
    parser.add_argument("--except", nargs="+", default=[], metavar="TEXT", dest="left_out")
    parser.add_argument("--without", type=Path, help="more clips that show no logo")
    options = parser.parse_args(arguments)
    results: list[Result] = []
    without: list[Without] = []
    moves: dict[str, float] = {}
    if options.moving:
        drawn_in = moving_clips(options.folder, options.moving, options.left_out)
    else:
        drawn_in = clips_in(options.folder, options.left_out)
    more = clips_in(options.without, options.left_out) if options.without else []
    more = [path for path in more if path not in drawn_in]
    for number, path in enumerate(drawn_in + more):
        try:
            frames, times = read(path)
        except InputError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        start = time.perf_counter()
        found = np.count_nonzero(find_logo(frames)) / frames[0][..., 0].size
        seconds = time.perf_counter() - start
        without.append(Without(path.stem, found, seconds, len(frames)))
        line = f"{path.stem}: {100 * found:.2f} % found without a logo"
        if number < len(drawn_in):
            moves[path.stem] = movement(frames)
            for place, design in enumerate(DESIGNS):
                drawing = Drawing.choose(design, path.stem, number + place)
                results.append(measure(path.stem, drawing, frames, times))
            line += "; " + " ".join(_cell(result) for result in results[-len(DESIGNS) :])
        print(line, flush=True)
    options.output.write_text(table(results, without, moves), encoding="utf-8")
    if results:
        plot(results, options.output.with_suffix(".png"))
        sheet(results, options.output.with_name(options.output.stem + "-sheet.png"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
