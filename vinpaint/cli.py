# SPDX-License-Identifier: Apache-2.0
"""The command line. Thin: parse, call, show."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import warnings
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from vinpaint.errors import InputError, InputWarning
from vinpaint.info import build_info, version

if TYPE_CHECKING:
    from vinpaint.inpainting import Inpainter

USAGE, FAILURE, INTERRUPTED = 2, 1, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0, or 2 for bad input, 130 for Ctrl-C, 1 for any other failure.
    """
    args = make_parser().parse_args(argv)
    with warnings.catch_warnings():
        warnings.simplefilter("always", InputWarning)
        warnings.showwarning = _show_warning
        try:
            args.run(args)
        except KeyboardInterrupt:
            print("vinpaint: interrupted; nothing half-written was left", file=sys.stderr)
            return INTERRUPTED
        except Exception as error:
            if args.debug:
                raise
            print(f"vinpaint: error: {str(error) or type(error).__name__}", file=sys.stderr)
            return USAGE if isinstance(error, InputError) else FAILURE
    return 0


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"vinpaint: warning: {message}", file=sys.stderr)


def command_parser(command: str) -> argparse.ArgumentParser:
    """The options of one command."""
    return _commands(make_parser())[command]


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    found = next(action.choices for action in parser._actions if isinstance(action.choices, dict))
    assert isinstance(found, dict)
    return found


def make_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = argparse.ArgumentParser(prog="vinpaint", description="Fill masked holes in video.")
    parser.add_argument("--version", action="version", version=f"vinpaint {version()}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    networks = argparse.ArgumentParser(add_help=False)
    options = _add_networks(networks)
    options.add_argument(
        "--weights",
        metavar="WEIGHTS",
        help="a folder of weights, or combcn (the default), or combcn-s: narrow networks, faster",
    )
    options.add_argument(
        "--propagate",
        default="auto",
        choices=["auto", "off"],
        help="auto: first carry into the hole what other frames have seen there; off: the networks fill all of it",
    )
    backends = argparse.ArgumentParser(add_help=False)
    backends.add_argument_group("the runtime").add_argument(
        "--backend",
        default="native",
        choices=["native", "auto", "tensorrt", "tensorrt_rtx", "openvino"],
        help="native: vinpaint's own operators; or an engine, built for each size of region when it is first met, "
        "which computes holes in 8 bits; auto: TensorRT's if it can be",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_inpaint(
        commands.add_parser(
            "inpaint", parents=[common, networks, backends], help="fill the hole in a video"
        )
    )
    _add_mask(commands.add_parser("mask", parents=[common], help="make the mask of a video's hole"))
    _add_demo(
        commands.add_parser(
            "demo", parents=[common, networks, backends], help="fill the bundled clip"
        )
    )
    _add_train(commands.add_parser("train", parents=[common], help="train on a folder of videos"))
    _add_evaluate(
        commands.add_parser("evaluate", parents=[common], help="compare methods on whole clips")
    )
    _add_stream(
        commands.add_parser(
            "stream",
            parents=[common, networks, backends],
            help="fill a camera's, an address's or a pipe's video",
        )
    )
    _add_web(
        commands.add_parser(
            "web",
            parents=[common, networks, backends],
            help="serve a page on which holes are drawn and filled",
        )
    )
    _add_export(
        commands.add_parser("export", parents=[common], help="write the networks as an ONNX file")
    )
    _add_compile(
        commands.add_parser("compile", parents=[common], help="build an engine of the networks")
    )
    completion = commands.add_parser(
        "completion", parents=[common], help="what a shell needs to complete commands and options"
    )
    completion.add_argument("shell", choices=["bash", "zsh", "tcsh"])
    completion.set_defaults(run=_completion)
    info = commands.add_parser("info", parents=[common], help="versions, what was built, devices")
    info.add_argument("--json", action="store_true", help="as one JSON object")
    info.set_defaults(run=_info)
    return parser


def _add_networks(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Where the networks run, and in what they compute."""
    options = parser.add_argument_group("the networks")
    options.add_argument(
        "--device", default="auto", help="auto, cpu, cuda or cuda:N (default auto)"
    )
    options.add_argument(
        "--precision",
        default="auto",
        choices=["auto", "fp32", "bf16", "fp16"],
        help="auto: the fastest that the processor computes in hardware",
    )
    return options


def _add_inpaint(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_inpaint)
    parser.add_argument(
        "input", metavar="INPUT", help="a video, or a folder of frames (PNG, JPEG, WebP)"
    )
    parser.add_argument(
        "-o", "--output", required=True, type=Path, help="the video to write; a folder for a folder"
    )
    hole = parser.add_argument_group("the hole")
    hole.add_argument(
        "-m",
        "--mask",
        help="an image for all frames, a folder with one a frame, or a video; white = fill",
    )
    hole.add_argument(
        "--box",
        action="append",
        default=[],
        metavar="X,Y,W,H[@START-END]",
        help="a box in pixels, all the time or from START to END: frames (@10-20) or seconds (@1.5s-3s); repeatable",
    )
    hole.add_argument(
        "--dilate", type=int, default=4, metavar="PX", help="grow the hole (default 4 pixels)"
    )
    hole.add_argument(
        "--feather", type=int, default=0, metavar="PX", help="blend inside the hole's edge"
    )
    hole.add_argument("--invert", action="store_true", help="black = fill")
    hole.add_argument("--mask-resize", action="store_true", help="allow a mask of another size")
    output = parser.add_argument_group("the output")
    output.add_argument("--overwrite", action="store_true", help="replace an output that exists")
    output.add_argument(
        "--codec", help="encoder, such as libx264, libx265, libvpx-vp9, or ffv1 (lossless)"
    )
    output.add_argument(
        "--crf", type=float, help="quality of the encoder: lower is better and larger"
    )
    output.add_argument("--pix-fmt", help="pixel format (default: the input's, or the nearest)")
    output.add_argument(
        "--preview", type=Path, metavar="FILE.png", help="also write a contact sheet"
    )
    output.add_argument(
        "--compare",
        type=Path,
        metavar="FILE",
        help="also write a video, input and output side by side",
    )
    output.add_argument(
        "--allow-truncated", action="store_true", help="fill what can be read of a damaged file"
    )


def _add_mask(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_mask)
    parser.add_argument("input", metavar="INPUT", help="a video, or a folder of frames")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        type=Path,
        metavar="FILE",
        help="the mask to write, white in the hole: a .mkv video, or a .png if it stays the same",
    )
    hole = parser.add_argument_group("the hole: all of these together")
    hole.add_argument(
        "--logo", action="store_true", help="find a logo or a time stamp that keeps its place"
    )
    hole.add_argument(
        "--box",
        action="append",
        default=[],
        metavar="X,Y,W,H[@START-END]",
        help="a box, as inpaint takes it; repeatable",
    )
    hole.add_argument(
        "--boxes",
        type=Path,
        metavar="FILE.csv",
        help="boxes over time, a line each: x,y,width,height,start,end",
    )
    hole.add_argument(
        "--subtitles",
        type=Path,
        metavar="FILE",
        help="a box while a line is shown: SubRip, WebVTT, ASS, or a video with subtitles in it",
    )
    hole.add_argument(
        "--subtitles-area",
        metavar="X,Y,W,H",
        help="that box (default: the lowest fifth of the frame)",
    )
    hole.add_argument(
        "-m",
        "--mask",
        action="append",
        default=[],
        metavar="MASK",
        help="a mask that is there, as inpaint takes it; repeatable",
    )
    hole.add_argument(
        "--paint",
        action="append",
        default=[],
        metavar="IMAGE[@START-END]",
        help="a picture, white in the hole, all the time or in some frames; repeatable",
    )
    hole.add_argument(
        "--follow",
        action="append",
        default=[],
        metavar="IMAGE[@FRAME]",
        help="a picture, white on an object in a frame (default 0; or a time, 1.5s), which is followed from there; "
        "more of them correct it",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an output that exists")
    parser.add_argument(
        "--preview", type=Path, metavar="FILE.png", help="also write a contact sheet"
    )
    parser.add_argument(
        "--allow-truncated", action="store_true", help="take what can be read of a damaged file"
    )


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_demo)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("vinpaint-demo"),
        help="folder (default vinpaint-demo)",
    )


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_train)
    parser.add_argument(
        "config",
        metavar="CONFIG",
        nargs="?",
        help="a TOML file, a recipe (default, paper), or a folder of videos for the recipe default; "
        "may be left out to go on with the run in OUTPUT",
    )
    parser.add_argument("-o", "--output", metavar="RUN", help="folder of the run")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change an option, such as stages.0.steps=100; repeatable",
    )
    going_on = parser.add_mutually_exclusive_group()
    going_on.add_argument(
        "--resume",
        action="store_const",
        const="must",
        help="insist on a checkpoint in RUN (default: go on from it if it is there)",
    )
    going_on.add_argument(
        "--fresh",
        action="store_const",
        const="never",
        dest="resume",
        help="begin anew and remove the checkpoint in RUN",
    )
    parser.add_argument(
        "--init",
        metavar="WEIGHTS",
        help="start from a checkpoint, a folder of weights, or combcn or combcn-s",
    )
    parser.add_argument("--device", help="auto, cpu, cuda or cuda:N (default auto)")
    parser.add_argument(
        "--time-limit", metavar="TIME", help="save and stop after 8m, 90s or 1h30m: exit code 75"
    )
    parser.add_argument(
        "--print-config", action="store_true", help="show every option and what it is, and stop"
    )


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_evaluate)
    parser.add_argument(
        "data",
        metavar="DATA",
        type=Path,
        help="a folder of clips: videos, folders of frames, folders with frames/ and masks/, or DAVIS",
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        type=Path,
        help="folder of the report; an evaluation that was interrupted goes on in it",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a report of other clips, sizes or holes"
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["vinpaint", "harmonic", "telea", "truth"],
        metavar="METHOD",
        help="vinpaint, stream:K (a stream that looks K frames ahead), networks, propagation, 3dcn, 2dcn, mean, harmonic, telea, navier-stokes, temporal-median, truth, or a program: "
        "NAME=command:TEMPLATE with {frames} {masks} {output}, folders of PNG frames "
        "(default vinpaint harmonic telea truth)",
    )
    parser.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="[NAME=]WEIGHTS",
        help="a folder of weights, or combcn or combcn-s, repeatable: a row each (default combcn)",
    )
    clips = parser.add_argument_group("the clips")
    clips.add_argument(
        "--size", type=_size, metavar="WxH", help="bring frames to this size, such as 432x240"
    )
    clips.add_argument("--frames", type=_count, metavar="N", help="the first N frames of each clip")
    hole = parser.add_argument_group("the holes")
    hole.add_argument(
        "--holes",
        type=lambda text: text.split(","),
        default=[],
        metavar="KIND,...",
        help="box, object, free-form (default box, and object where there are object masks)",
    )
    hole.add_argument(
        "--hole-ratio",
        type=float,
        default=1 / 16,
        metavar="SHARE",
        help="of the frame's area that a box or free-form hole covers (default 0.0625)",
    )
    hole.add_argument(
        "--masks", type=Path, metavar="FOLDER", help="take the holes of an earlier report's masks/"
    )
    hole.add_argument("--seed", type=int, default=0, help="what the holes are drawn from")
    options = _add_networks(parser)
    options.add_argument(
        "--no-perceptual", action="store_true", help="leave out LPIPS and VFID: faster"
    )


def _add_stream(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_stream)
    parser.add_argument(
        "input",
        metavar="INPUT",
        help="a file, an address (rtsp, rtmp, udp, srt), a device such as /dev/video0, or - for standard input",
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        help="a file, an address, a device, or - for standard output",
    )
    hole = parser.add_argument_group("the hole")
    hole.add_argument("-m", "--mask", help="an image for all frames; white = fill")
    hole.add_argument(
        "--box", action="append", default=[], metavar="X,Y,W,H", help="a box; repeatable"
    )
    hole.add_argument("--mask-resize", action="store_true", help="allow a mask of another size")
    timing = parser.add_argument_group("the timing")
    timing.add_argument(
        "--lookahead",
        type=int,
        default=4,
        metavar="N",
        help="frames that a frame waits for: more is better and later (default 4)",
    )
    timing.add_argument(
        "--late",
        default="queue",
        choices=["queue", "drop", "hold"],
        help="frames that come too fast: the source waits, they are left out, or the one before goes out again",
    )
    timing.add_argument(
        "--realtime", action="store_true", help="read a file no faster than it plays"
    )
    timing.add_argument(
        "--reconnect",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="try a source that ended again for so long",
    )
    timing.add_argument(
        "--timeout", type=float, metavar="SECONDS", help="without data, until an address has ended"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an output that exists")
    form = parser.add_argument_group("the formats")
    form.add_argument("--input-format", metavar="NAME", help="FFmpeg's name, such as v4l2 or nut")
    form.add_argument("--output-format", metavar="NAME", help="FFmpeg's name (- is written as nut)")
    form.add_argument("--codec", help="encoder (default libx264; raw frames for -)")


def _add_web(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_web)
    server = parser.add_argument_group("the server")
    server.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at (default 127.0.0.1: this machine alone; for others, such as 0.0.0.0, a password is "
        "asked for, or taken from VINPAINT_WEB_PASSWORD)",
    )
    server.add_argument("--port", type=int, default=7860, help="0: any that is free (default 7860)")
    server.add_argument(
        "--folder",
        type=Path,
        help="for visitors' files while they are there (default: the system's temporary one)",
    )
    limits = parser.add_argument_group("the limits")
    for name, default, what in (
        ("--max-size", 500, "megabytes of an upload"),
        ("--max-frames", 7500, "frames of a video"),
        ("--max-queue", 30, "videos that may wait"),
        ("--max-visitors", 60, "pages open at once"),
        ("--keep", 60, "minutes without any action until a visitor's files are deleted"),
    ):
        limits.add_argument(
            name, type=_count, default=default, metavar="N", help=f"{what} (default {default})"
        )


def _add_graph(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """What a graph of the networks is made for."""
    parser.add_argument(
        "--weights", metavar="WEIGHTS", help="a folder of weights, or combcn (default) or combcn-s"
    )
    for name in ("--width", "--height"):
        parser.add_argument(
            name, type=_count, required=required, metavar="PX", help="of the frames"
        )
    parser.add_argument("--frames", type=_count, metavar="N", help="of a clip (default 16)")
    parser.add_argument(
        "--context",
        type=int,
        default=0,
        metavar="N",
        help="frames before and after those that come out, 13 for exact chunks of a longer clip (default 0)",
    )
    parser.add_argument(
        "--lookahead",
        type=int,
        metavar="N",
        help="for a stream in place of clips: a frame a time, which waits for N frames; what is kept goes in and out",
    )
    parser.add_argument(
        "--precision",
        default="fp32",
        choices=["fp32", "fp16", "bf16"],
        help="what the networks compute in (default fp32)",
    )


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_export)
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--onnx", type=Path, metavar="FILE", help="the ONNX file to write")
    target.add_argument(
        "--triton",
        type=Path,
        metavar="FOLDER",
        help="a model repository of the Triton Inference Server, to which the networks are added",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    _add_graph(parser, required=False)
    parser.add_argument(
        "--any-frames", action="store_true", help="for clips of any number of frames from 2 on"
    )
    parser.add_argument(
        "--any-size",
        action="store_true",
        help="for clips of any width and height that are multiples of 8 (of 16 for combcn-s)",
    )
    parser.add_argument(
        "--engine",
        type=Path,
        metavar="FILE",
        help="with --triton: in place of an ONNX file, what compile --backend tensorrt built",
    )
    parser.add_argument(
        "--name", default="vinpaint", help="with --triton: of the model (default vinpaint)"
    )


def _add_compile(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_compile)
    parser.add_argument(
        "--backend",
        required=True,
        choices=["tensorrt", "tensorrt_rtx", "openvino"],
        help="the runtime",
    )
    _add_graph(parser, required=True)
    parser.add_argument(
        "--compute-capability",
        metavar="X.Y",
        help="of the card that the engine is for, such as 8.9 (default: the one that is here)",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="the file to write (default: the cache)"
    )
    parser.add_argument("--rebuild", action="store_true", help="also where there is one already")


def _size(text: str) -> tuple[int, int]:
    width, cross, height = text.partition("x")
    if not (cross and width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT, such as 432x240, got {text!r}")
    return int(width), int(height)


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {text!r}")
    return int(text)


def _inpaint(args: argparse.Namespace) -> None:
    from vinpaint.files import inpaint_video

    hole = ("dilate", "invert", "feather", "mask_resize", "allow_truncated")
    output = ("overwrite", "codec", "crf", "pix_fmt", "preview", "compare")
    with closing(_Progress("frame")) as progress:
        report = inpaint_video(
            args.input,
            args.output,
            mask=args.mask,
            boxes=args.box,
            inpainter=lambda: _inpainter(args),
            progress=progress,
            **{name: getattr(args, name) for name in hole + output},
        )
    rate = report.frames / report.seconds
    print(
        f"{args.output}: {report.frames} frames, {report.hole_frames} with a hole, "
        f"{report.shots} shot{'s' if report.shots > 1 else ''}, {report.seconds:.1f} s ({rate:.1f} frames/s)"
    )


def _mask(args: argparse.Namespace) -> None:
    from vinpaint.masking import MaskSources, make_mask

    with closing(_Phases()) as progress:
        report = make_mask(
            args.input,
            args.output,
            MaskSources(
                logo=args.logo,
                boxes=args.box,
                boxes_file=args.boxes,
                subtitles=args.subtitles,
                subtitles_area=args.subtitles_area,
                mask=args.mask,
                paint=args.paint,
                follow=args.follow,
            ),
            preview=args.preview,
            overwrite=args.overwrite,
            allow_truncated=args.allow_truncated,
            progress=progress,
        )
    lost = f"; what is followed was not found in {report.lost_frames}" if report.lost_frames else ""
    print(f"{args.output}: {report.frames} frames, {report.hole_frames} with a hole{lost}")


def _demo(args: argparse.Namespace) -> None:
    from vinpaint.demo import run_demo

    with closing(_Progress("frame")) as progress:
        files = run_demo(args.output, _inpainter(args), progress)
    print(
        f"Look at {files.preview}: whoever is marked on the left of a pair should be gone on its "
        f"right; {files.compare} plays both, {files.output} is the result."
    )
    print(
        "Then fill your own: vinpaint inpaint VIDEO --box X,Y,WIDTH,HEIGHT --output FILLED.mp4 "
        "(or --mask IMAGE, FOLDER or VIDEO)"
    )


def _train(args: argparse.Namespace) -> None:
    from vinpaint.training import Stopped, train
    from vinpaint.training.config import find_config, load_config
    from vinpaint.training.distributed import is_first
    from vinpaint.training.monitor import ProgressBar, say_on_terminal
    from vinpaint.training.options import to_toml

    given = {name: getattr(args, name) for name in ("output", "resume", "init", "device")}
    given["time_limit"] = args.time_limit
    assignments = [f"run.{k}={json.dumps(v)}" for k, v in given.items() if v is not None]
    source = args.config or find_config(args.output, any_recipe=args.print_config)
    config = load_config(source, [*assignments, *args.set])
    if args.print_config:
        print(to_toml(config, documented=True), end="")
        return
    try:
        with closing(ProgressBar()) as progress, say_on_terminal():
            train(config, progress=progress)
    except Stopped as stopped:
        if is_first():
            print(f"vinpaint: {stopped}", file=sys.stderr)
        sys.exit(stopped.exit_code)
    if is_first():
        run = Path(config.run.output)
        print(f"{run}: done; vinpaint inpaint VIDEO --weights {run / 'weights'} uses the weights")


def _evaluate(args: argparse.Namespace) -> None:
    from vinpaint.evaluation.report import write_report
    from vinpaint.evaluation.run import evaluate

    with closing(_Progress("fill")) as progress:
        results = evaluate(
            args.data,
            args.methods,
            output=args.output,
            size=args.size,
            frames=args.frames,
            holes=args.holes,
            ratio=args.hole_ratio,
            masks=args.masks,
            weights=args.weights,
            seed=args.seed,
            device=args.device,
            precision=args.precision,
            perceptual=not args.no_perceptual,
            isolate=True,
            overwrite=args.overwrite,
            progress=progress,
        )
    for hole in results.holes:
        print(f"{hole}\n\n{results.table(hole)}\n")
    print(f"{write_report(results, args.output)} has plots and pictures")
    for failure in results.failures:
        print(
            f"vinpaint: {failure.method} failed on {failure.clip} ({failure.hole}): {failure.reason}",
            file=sys.stderr,
        )
    if results.failures:
        raise RuntimeError(
            f"{len(results.failures)} of {len(results.failures) + len(results.scores)} fills failed"
        )


def _stream(args: argparse.Namespace) -> None:
    from vinpaint.live import Statistics, fixed_mask, stream_video
    from vinpaint.streaming import Streamer
    from vinpaint.video.masks import parse_box

    if args.mask is None and not args.box:
        raise InputError("--mask or --box: expected at least one of the two, got neither")
    boxes = [parse_box(text) for text in args.box]
    inpainter = _inpainter(args)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a service's end is as Ctrl-C

    def streamer(height: int, width: int) -> Streamer:
        hole = fixed_mask(height, width, args.mask, boxes, resize=args.mask_resize)
        return Streamer(inpainter, lookahead=args.lookahead, mask=hole)

    def tell(statistics: Statistics) -> None:
        end = "\r" if sys.stderr.isatty() else "\n"
        print(statistics.line(), end=end, file=sys.stderr, flush=True)

    statistics = stream_video(
        args.input,
        args.output,
        streamer,
        source_format=args.input_format,
        sink_format=args.output_format,
        codec=args.codec,
        late=args.late,
        realtime=args.realtime,
        reconnect=args.reconnect,
        timeout=args.timeout,
        overwrite=args.overwrite,
        told=tell,
    )
    print(statistics.line(), file=sys.stderr)


def _web(args: argparse.Namespace) -> None:
    from vinpaint.web.project import Limits
    from vinpaint.web.server import ServerOptions, find_password, serve

    options = ServerOptions(
        host=args.host,
        port=args.port,
        password=find_password(args.host),
        folder=args.folder,
        megabytes=args.max_size,
        limits=Limits(frames=args.max_frames),
        queue=args.max_queue,
        visitors=args.max_visitors,
        keep=args.keep,
        networks={name: getattr(args, name) for name in ("weights", "precision", "propagate")},
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a service's end is as Ctrl-C
    with serve(options, partial(_chosen_inpainter, args)) as address:
        print(f"The page is at {address} - Ctrl-C ends it", flush=True)
        signal.pause()


def _export(args: argparse.Namespace) -> None:
    from vinpaint.engine import export_onnx, export_triton
    from vinpaint.pretrained import load_pretrained

    if args.engine is not None:
        if args.triton is None:
            raise InputError("--engine: expected --triton beside it")
        given = [name for name in ("width", "height", "frames", "lookahead") if getattr(args, name)]
        if given:
            raise InputError(f"--engine: expected no --{given[0]} beside it: the engine is built")
        made = export_triton(args.triton, engine=args.engine, name=args.name)
        print(f"{made}: the engine, for a Triton server with this card and TensorRT alone")
        return
    if args.any_size:  # then they are an example
        args.width, args.height = args.width or 64, args.height or 64
    if args.width is None or args.height is None:
        raise InputError("--width and --height: expected both, of the frames, or --any-size")
    any_size = {"any_frames": args.any_frames, "any_size": args.any_size}
    model, options = load_pretrained(args.weights), {**_graph(args), **any_size}
    if args.triton is not None:
        print(f"{export_triton(args.triton, model, name=args.name, **options)}: an ONNX file")
        return
    if args.onnx.exists() and not args.overwrite:
        raise InputError(f"--onnx: {args.onnx} exists; --overwrite replaces it")
    export_onnx(model, args.onnx, **options)
    if args.lookahead is None:
        print(f"{args.onnx}: uint8 frames, mask and live in, uint8 completed and invalid out")
    else:
        print(f"{args.onnx}: a step of a stream, uint8 frames and what is kept in and out")


def _compile(args: argparse.Namespace) -> None:
    from vinpaint.engine import compile as compile_engine
    from vinpaint.pretrained import load_pretrained

    with closing(_Phases()) as progress:
        path = compile_engine(
            load_pretrained(args.weights),
            backend=args.backend,
            target=args.compute_capability,
            output=args.output,
            rebuild=args.rebuild,
            progress=progress,
            **_graph(args),
        )
    print(f"{path}: an engine for this installation, {'built' if progress.called else 'found'}")


def _graph(args: argparse.Namespace) -> dict[str, Any]:
    names = ("height", "width", "context", "lookahead", "precision")
    frames = args.frames
    if frames is None and args.lookahead is None:
        frames = 16
    return {"frames": frames, **{name: getattr(args, name) for name in names}}


def _info(args: argparse.Namespace) -> None:
    info = build_info()
    if args.json:
        print(json.dumps(info))
        return
    for name, value in info.items():
        shown = ", ".join(map(str, value)) or "none" if isinstance(value, list) else value
        print(f"{name.replace('_', ' '):20} {shown}")


def _completion(args: argparse.Namespace) -> None:
    import shtab

    parser = make_parser()
    for command in _commands(parser).values():
        for action in command._actions:
            if action.type is Path or action.dest in ("input", "output", "mask", "weights"):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(parser, shell=args.shell))


def _inpainter(args: argparse.Namespace) -> Inpainter:
    from vinpaint.inpainting import Inpainter

    return Inpainter.from_pretrained(
        args.weights,
        device=args.device,
        precision=args.precision,
        propagate=args.propagate,
        backend=getattr(args, "backend", "native"),
    )


def _chosen_inpainter(args: argparse.Namespace, **chosen: Any) -> Inpainter:
    """As ``args`` say, but for what a visitor of the page has chosen."""
    return _inpainter(argparse.Namespace(**{**vars(args), **chosen}))


class _Phases:
    """A progress bar for work in several steps, each with its name; silent when standard error is no terminal."""

    def __init__(self) -> None:
        self._bar = tqdm(dynamic_ncols=True, disable=None, leave=False)
        self._phase: str | None = None

    @property
    def called(self) -> bool:
        """Whether there was anything to show."""
        return self._phase is not None

    def close(self) -> None:
        self._bar.close()

    def __call__(self, phase: str, done: int, total: int) -> None:
        if phase != self._phase:
            self._phase = phase
            self._bar.reset()
            self._bar.set_description(phase, refresh=False)
        self._bar.total = total or None
        self._bar.update(done - self._bar.n)


class _Progress:
    """A progress bar with rate and time left; silent when standard error is no terminal."""

    def __init__(self, unit: str) -> None:
        self._bar = tqdm(unit=unit, dynamic_ncols=True, disable=None, leave=False)

    def close(self) -> None:
        self._bar.close()

    def __call__(self, done: int, total: int) -> None:
        self._bar.total = total or None
        self._bar.update(done - self._bar.n)
