# SPDX-License-Identifier: Apache-2.0
"""The networks as one graph: the same pixels as the operators', in every runtime that runs here."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from models import random_model

from vinpaint import engine
from vinpaint.engine import compiling, export, openvino, tensorrt
from vinpaint.engine.graph import ClipGraph, StreamGraph
from vinpaint.engine.store import MAGIC, Spec, Store
from vinpaint.errors import InputError, InputWarning
from vinpaint.inpainting import Inpainter
from vinpaint.nn import InpainterConfig, VideoInpainter
from vinpaint.nn.streaming import LAYERS, Clock
from vinpaint.painting import Given
from vinpaint.streaming import Streamer
from vinpaint.video.windows import WORKING_HOLE, Plan, Shot, make_plan, whole_region

WIDTH = 0.125
FRAMES, HEIGHT, WIDE = 6, 40, 52  # not multiples of the grid

OPTIONS: list[dict[str, Any]] = [
    {},
    {"prefill": "smooth"},
    {"prefill": "carried", "confidence": True},
    {"mode": "2dcn"},
    {"reduction": 4},
]


def _clip(frames: int = FRAMES) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    clip = rng.integers(0, 256, (frames, HEIGHT, WIDE, 3), dtype=np.uint8)
    mask = np.zeros((frames, HEIGHT, WIDE), np.uint8)
    mask[:, 12:26, 20:39] = 255
    return clip, mask


def _model(**options: Any) -> VideoInpainter:
    return random_model(InpainterConfig(width=WIDTH, **options))


def _by_operators(model: VideoInpainter, clip: np.ndarray, mask: np.ndarray) -> np.ndarray:
    region = whole_region(HEIGHT, WIDE, None, WORKING_HOLE)
    plan = Plan((Shot(0, len(clip), (region,)),), len(clip))
    inpainter = Inpainter(model, propagate="off")
    return np.stack(list(inpainter.fill(zip(clip, mask, strict=True), plan)))


def _far(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b).max())


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of clips of any number of frames."""
    path = tmp_path_factory.mktemp("onnx") / "smooth.onnx"
    size = {"frames": FRAMES, "height": HEIGHT, "width": WIDE}
    engine.export_onnx(_model(prefill="smooth"), path, **size, any_frames=True)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    return path


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_graph_is_the_operators(options: dict[str, Any]) -> None:
    clip, mask = _clip()
    graph = ClipGraph(_model(**options))
    with torch.no_grad():
        live = torch.ones(FRAMES, dtype=torch.uint8)
        filled, invalid = graph(*map(torch.from_numpy, (clip, mask)), live)
    assert invalid.tolist() == [0]
    assert filled.dtype == torch.uint8
    assert _far(filled.numpy(), _by_operators(_model(**options), clip, mask)) <= 1
    assert np.array_equal(filled.numpy()[mask == 0], clip[mask == 0])


def test_every_layer_of_the_graph_has_the_papers_shape() -> None:
    graph = ClipGraph(VideoInpainter())
    shapes: dict[str, tuple[int, ...]] = {}
    for name, layer in graph.model.named_modules():
        if name.startswith(("completion.", "comb.")):
            layer.register_forward_hook(
                lambda *call, name=name: shapes.update({name: tuple(call[2].shape)})
            )
    clip = torch.zeros(4, 64, 64, 3, dtype=torch.uint8)
    with torch.no_grad():
        graph(clip, clip[..., 0], torch.ones(4))
    sizes = {"1": 32, "2": 16, "3": 16, "9": 16, "10": 16, "11": 32, "12": 32}
    channels = [16, 32, 64, 128, 256, 256, 256, 128, 64, 32, 16, 3]
    for index, count in enumerate(channels, 1):
        name = f"completion.{'deconv' if index in (9, 11) else 'conv'}{index}"
        size = sizes.get(str(index), 8)
        assert shapes[name] == (1, count, 4, size, size), name
    channels = [64, 128, 128, *[256] * 9, 128, 128, 64, 32, 3]
    sides = [64, 32, 32, *[16] * 9, 32, 32, 64, 64, 64]
    for index, (count, size) in enumerate(zip(channels, sides, strict=True), 1):
        name = f"comb.{'deconv' if index in (13, 15) else 'conv'}{index}"
        assert shapes[name] == (4, count, size, size), name  # two-dimensional
    assert shapes["comb.guide2"] == shapes["comb.guide14"] == (4, 128, 32, 32)
    assert len(shapes) == 12 + 19


def test_frames_that_only_fill_up_change_nothing() -> None:
    clip, mask = _clip(12)
    model = _model()
    whole = ClipGraph(model, context=3)
    with torch.no_grad():
        live = torch.ones(12, dtype=torch.uint8)
        live[:4] = live[10:] = 0
        noise = np.random.default_rng(1).integers(0, 256, clip.shape, dtype=np.uint8)
        given = np.where(live.numpy()[:, None, None, None] > 0, clip, noise)
        found, _ = whole(*map(torch.from_numpy, (given, mask)), live)
    assert found.shape[0] == 6
    expected = _by_operators(_model(), clip[4:10], mask[4:10])
    assert _far(found.numpy()[1:], expected[:5]) <= 1


def test_onnx_runtime_computes_the_same(onnx_file: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
    for frames in (FRAMES, 3):
        clip, mask = _clip(frames)
        inputs = {"frames": clip, "mask": mask, "live": np.ones(frames, np.uint8)}
        filled, invalid = session.run(["completed", "invalid"], inputs)
        assert invalid.tolist() == [0]
        assert filled.dtype == np.uint8
        expected = _by_operators(_model(prefill="smooth"), clip, mask)
        assert _far(filled, expected) <= 1
        assert (filled != expected).mean() < 1e-3
    facts = json.loads(session.get_modelmeta().custom_metadata_map["vinpaint"])
    assert facts["networks"]["prefill"] == "smooth"
    assert facts["options"]["height"] == HEIGHT


def test_a_program_of_torch_export_computes_the_same() -> None:
    clip, mask = _clip(8)
    size = {"frames": 8, "height": HEIGHT, "width": WIDE}
    program = engine.export_program(_model(), **size, context=1)
    live = torch.ones(8, dtype=torch.uint8)
    filled, _ = program.module()(*map(torch.from_numpy, (clip, mask)), live)
    assert _far(filled.numpy(), _by_operators(_model(), clip, mask)[1:-1]) <= 1


def test_values_that_are_no_numbers_are_told() -> None:
    clip, mask = _clip()
    model = _model()
    model.comb.conv17.bias.data[0] = float("nan")
    live = torch.ones(FRAMES, dtype=torch.uint8)
    with torch.no_grad():
        _, invalid = ClipGraph(model)(*map(torch.from_numpy, (clip, mask)), live)
    assert invalid.tolist() == [1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 0}, "expected a height and a width above 0, got 0 x 52"),
        ({"frames": 26, "context": 13}, "expected more frames than 26, twice the context, got 26"),
        (
            {"lookahead": 2},
            "either a clip's number of frames or a stream's look-ahead, got 6 and 2",
        ),
        ({"frames": None}, "a clip's number of frames or a stream's look-ahead, got None and None"),
        ({"frames": None, "lookahead": -1}, "a look-ahead of 0 or more and no context, got -1"),
        (
            {"frames": None, "lookahead": 1, "any_size": True},
            "expected a stream's graph to be of one size, without --any-frames and --any-size",
        ),
        ({"frames": 27, "context": 13, "any_frames": True}, "expected 28 frames or more, got 27"),
        ({"frames": 1, "any_frames": True}, "expected 2 frames or more, got 1"),
        ({"any_size": True}, "expected multiples of 8 above 8 for any size, got 40 x 52"),
        ({"precision": "int8"}, "precision: expected one of fp32, fp16, bf16, got 'int8'"),
    ],
)
def test_what_cannot_be_exported_is_an_error(options: dict[str, Any], message: str) -> None:
    size = {"frames": FRAMES, "height": HEIGHT, "width": WIDE}
    with pytest.raises(InputError, match=re.escape(message)):
        engine.export_program(_model(), **{**size, **options})
    with pytest.raises(InputError, match="without strides over frames"):
        engine.export_program(_model(temporal_stride=True), **size)


def test_a_graph_for_any_size_computes_the_same() -> None:
    """Its smooth fill is the one of plain operations, with a number of halvings that no size decides."""
    rng = np.random.default_rng(0)
    model = _model(prefill="smooth")
    anything = ClipGraph(model, any_size=True)
    for height, width in ((16, 64), (40, 56)):
        clip = torch.from_numpy(rng.integers(0, 256, (3, height, width, 3), dtype=np.uint8))
        mask = torch.zeros(3, height, width, dtype=torch.uint8)
        mask[:, 3:13, 20:50] = 1
        live = torch.ones(3, dtype=torch.uint8)
        with torch.no_grad():
            found, expected = (graph(clip, mask, live)[0] for graph in (anything, ClipGraph(model)))
        assert _far(found.numpy(), expected.numpy()) <= 1
        assert (found != expected).float().mean() < 1e-3


def test_a_file_for_any_size_takes_any_on_the_grid() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    size = {"frames": FRAMES, "height": 40, "width": 56}
    file = export.onnx_bytes(_model(), **size, any_frames=True, any_size=True)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[1].shape == ["frames", "height", "width"]
    for frames, height, width in ((3, 40, 56), (4, 64, 24)):
        clip = np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
        mask = np.zeros(clip.shape[:3], np.uint8)
        mask[:, 8:20, 4:16] = 255
        inputs = {"frames": clip, "mask": mask, "live": np.ones(frames, np.uint8)}
        filled, _ = session.run(None, inputs)
        with torch.no_grad():
            expected, _ = ClipGraph(_model())(*map(torch.from_numpy, inputs.values()))
        assert _far(filled, expected.numpy()) <= 1


# --- streams --------------------------------------------------------------------------------------


def _streamed(inpainter: Inpainter, lookahead: int, clip: np.ndarray, mask: np.ndarray) -> Any:
    streamer = Streamer(inpainter, lookahead=lookahead, area=(0, 0, *clip.shape[2:0:-1]))
    pairs = zip(clip, mask, strict=True)
    finished = [image for pair in pairs for image in streamer.push(*pair)]
    return np.stack(finished + streamer.flush())


def _stepped(run: Any, graph: StreamGraph, clip: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A clip through the graph of a step, however it is run; after the clip's end it is given its first frame."""
    frames, holes = (torch.from_numpy(part).split(1) for part in (clip, mask))
    clock, state = Clock(graph.step.delays), graph.blank(*clip.shape[1:3])
    steps = [clock.tick() for _ in frames]
    steps += clock.end()
    finished: list[np.ndarray] = []
    for t, live in enumerate(steps):
        new, late = t if t < len(frames) else 0, len(finished)
        alive = torch.tensor(live, dtype=torch.uint8)
        with torch.no_grad():
            completed, invalid, *state = run(
                frames[new], holes[new], frames[late], holes[late], alive, *state
            )
        assert invalid.tolist() == [0]
        if live[-1]:
            finished.append(completed[0].numpy())
    assert len(finished) == len(frames)
    return np.stack(finished)


@pytest.mark.parametrize("lookahead", [0, 3, 13])
@pytest.mark.parametrize("options", [OPTIONS[0], OPTIONS[1], OPTIONS[2], OPTIONS[4]], ids=str)
def test_steps_of_the_graph_are_the_stream(options: dict[str, Any], lookahead: int) -> None:
    clip, mask = _clip(16)
    mask[5:8] = 0
    expected = _streamed(Inpainter(_model(**options), propagate="off"), lookahead, clip, mask)
    for plain in (True, False):
        graph = StreamGraph(_model(**options), lookahead=lookahead, plain=plain).eval()
        found = _stepped(graph, graph, clip, mask)
        assert _far(found, expected) <= 1
        assert (found != expected).mean() < 1e-3


def test_onnx_runtime_takes_the_same_steps() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    clip, mask = _clip(8)
    graph = StreamGraph(_model(), lookahead=2).eval()
    file = export.onnx_bytes(_model(), lookahead=2, height=HEIGHT, width=WIDE)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    inputs, outputs = export.interface(stream=True)
    assert [i.name for i in session.get_inputs()] == list(inputs)
    assert [o.name for o in session.get_outputs()] == list(outputs)
    assert len(inputs) == 5 + LAYERS

    def run(*given: torch.Tensor) -> list[torch.Tensor]:
        values = {name: part.numpy() for name, part in zip(inputs, given, strict=True)}
        return [torch.from_numpy(value) for value in session.run(None, values)]

    expected = _streamed(Inpainter(_model(), propagate="off"), 2, clip, mask)
    assert _far(_stepped(run, graph, clip, mask), expected) <= 1


@pytest.mark.parametrize(
    ("options", "lookahead", "propagate"),
    [({}, 0, "off"), (OPTIONS[4], 4, "off"), (OPTIONS[0], 3, "auto")],
    ids=str,
)
def test_openvino_streams_as_the_operators_do(
    options: dict[str, Any], lookahead: int, propagate: Any, cache: Path
) -> None:
    pytest.importorskip("openvino")
    clip, mask = _clip(12)
    mask[3] = 0
    mask[:, :, 30:] = 0
    ours, theirs = (
        _streamed(
            Inpainter(_model(**options), backend=backend, propagate=propagate),
            lookahead,
            clip,
            mask,
        )
        for backend in ("native", "openvino")
    )
    assert _far(theirs, ours) <= 1
    assert (theirs != ours).mean() < 1e-3
    assert len([path for path in cache.iterdir() if path.suffix == ".engine"]) == 1


def test_a_streams_engine_starts_afresh_after_a_flush(cache: Path) -> None:
    pytest.importorskip("openvino")
    clip, mask = _clip(5)
    inpainter = Inpainter(_model(), backend="openvino", propagate="off")
    streamer = Streamer(inpainter, lookahead=4)
    rounds = []
    for frames in (255 - clip, clip, clip[:2]):
        found = [
            image for pair in zip(frames, mask, strict=False) for image in streamer.push(*pair)
        ]
        rounds.append(np.stack(found + streamer.flush()))
    assert [len(found) for found in rounds] == [5, 5, 2]
    assert np.array_equal(rounds[1], _streamed(inpainter, 4, clip, mask))
    assert any(cache.iterdir())


def test_deep_pixels_stream_through_an_engine(cache: Path) -> None:
    pytest.importorskip("openvino")
    clip, mask = _clip(4)
    deep = clip.astype(np.uint16) * 257
    ours, theirs = (
        _streamed(Inpainter(_model(), backend=backend, propagate="off"), 2, deep, mask)
        for backend in ("native", "openvino")
    )
    assert theirs.dtype == np.uint16
    assert _far(theirs, ours) <= 2 * 257
    assert np.array_equal(theirs[mask == 0], deep[mask == 0])
    assert any(cache.iterdir())


def test_what_streams_cannot_be_through_an_engine(cache: Path) -> None:
    pytest.importorskip("openvino")
    alone = Inpainter(_model(mode="2dcn"), backend="openvino", propagate="off")
    with pytest.raises(InputError, match="expected networks with a 3DCN for an engine"):
        Streamer(alone)
    with pytest.raises(InputError, match="expected networks with a 3DCN for an engine"):
        engine.export_program(_model(mode="2dcn"), lookahead=0, height=16, width=16)
    assert not cache.exists() or not any(cache.iterdir())


# --- engines --------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "vinpaint" / "engines"


@pytest.mark.parametrize(
    ("options", "propagate"), [(OPTIONS[1], "off"), (OPTIONS[2], "auto")], ids=str
)
def test_openvino_fills_as_the_operators_do(
    options: dict[str, Any], propagate: Any, cache: Path
) -> None:
    pytest.importorskip("openvino")
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (32, 48, 3), dtype=np.uint8)
    clip = np.repeat(frame[None], 40, axis=0)  # more than a chunk
    mask = np.zeros((40, 32, 48), np.uint8)
    for t, plane in enumerate(mask):
        plane[8:20, 4 + t // 4 : 24 + t // 4] = 255  # part of what is behind is never seen
    mask[7:9, :, 24:] = 0
    ours, theirs = (
        Inpainter(_model(**options), backend=backend, propagate=propagate)(clip, mask)
        for backend in ("native", "openvino")
    )
    assert _far(theirs, ours) <= 1
    exact = 1e-3 if propagate == "off" else 0.02  # the share that is believed travels as a byte
    assert (theirs != ours).mean() < exact
    assert np.array_equal(theirs[mask == 0], clip[mask == 0])
    assert cache.stat().st_mode & 0o777 == 0o700
    built = [path.name for path in cache.iterdir() if path.suffix == ".engine"]
    assert len(built) == 1


def test_openvino_fills_reduced_regions_and_deep_pixels(cache: Path) -> None:
    pytest.importorskip("openvino")
    clip = np.random.default_rng(0).integers(0, 65536, (3, 128, 128, 3), dtype=np.uint16)
    clip[:] = (clip.astype(int) // 8 + 20000).astype(np.uint16)
    mask = np.zeros((3, 128, 128), np.uint8)
    mask[:, 20:110, 20:110] = 255
    plan = make_plan(mask, 3)
    assert plan.shots[0].regions[0].resized
    model = _model(prefill="smooth")
    model.comb.conv17.weight.data *= 0.02  # what it adds to the fill stays within bytes
    found = []
    for backend in ("native", "openvino"):
        inpainter = Inpainter(copy.deepcopy(model), backend=backend, propagate="off")
        found.append(np.stack(list(inpainter.fill(zip(clip, mask, strict=True), plan))))
    ours, theirs = found
    fill = VideoInpainter(InpainterConfig(prefill="smooth", width=WIDTH))
    smooth = Inpainter(fill, propagate="off").fill(zip(clip, mask, strict=True), plan)
    assert _far(ours, np.stack(list(smooth))) > 10 * 257  # it does add something
    # Engines take and give bytes, and random networks make much of little.
    assert _far(theirs, ours) <= 4 * 257
    assert np.abs(theirs.astype(int) - ours)[mask > 0].mean() < 257
    assert np.array_equal(theirs[mask == 0], clip[mask == 0])
    assert any(cache.iterdir())


@pytest.mark.parametrize(
    ("capability", "height", "width", "precision", "length"),
    [
        ("8.9", 128, 128, "fp32", {"frames": 4}),
        ("12.0", 240, 432, "fp16", {"frames": 4}),
        ("8.9", 240, 432, "bf16", {"lookahead": 2}),
    ],
)
def test_tensorrt_builds_engines_without_a_card(
    capability: str, height: int, width: int, precision: Any, length: Any, cache: Path
) -> None:
    pytest.importorskip("tensorrt_rtx")
    told: list[tuple[str, int, int]] = []
    path = engine.compile(
        VideoInpainter().eval(),
        backend="tensorrt_rtx",
        **length,
        height=height,
        width=width,
        precision=precision,
        target=capability,
        progress=lambda *step: told.append(step),
    )
    spec, payload = Store().read(path)
    assert (spec.target, spec.precision) == (capability, precision)
    assert len(payload) > 1_000_000
    assert path.parent == cache
    assert told
    assert told[-1][1] == told[-1][2]
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="runs on a GPU, and there is none here"):
            engine.load(path)


def test_what_a_backend_cannot_do_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)  # as if it were not installed
    size = {"frames": 2, "height": 16, "width": 16}
    with pytest.raises(InputError, match=r"--backend: expected one of .*, got 'tvm'"):
        engine.compile(_model(), backend="tvm", **size)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"tensorrt: .*; pip install 'vinpaint\[tensorrt\]'"):
        engine.compile(_model(), backend="tensorrt", **size)
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match=r"expected --compute-capability, such as 8\.9"):
            engine.compile(_model(), backend="tensorrt_rtx", **size)
        with pytest.warns(InputWarning, match="backend auto: vinpaint's own operators, as"):
            assert Inpainter(_model(), backend="auto").model is not None
    with pytest.raises(InputError, match=r"expected a compute capability of .*8\.9.*, got 3\.5"):
        engine.compile(_model(), backend="tensorrt_rtx", target="3.5", **size)
    with pytest.raises(InputError, match=r"expected a device of .*CPU.*, got 'TPU'"):
        engine.compile(_model(), backend="openvino", target="TPU", **size)
    with pytest.raises(InputError, match="--backend tensorrt_rtx: expected the device cuda"):
        Inpainter(_model(), backend="tensorrt_rtx")
    with pytest.raises(InputError, match=r"--backend: expected one of native, auto, .*, got 'x'"):
        Inpainter(_model(), backend="x")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="without strides over frames"):
        Inpainter(_model(temporal_stride=True), backend="openvino")


# --- serving --------------------------------------------------------------------------------------


def _configuration(model: Path) -> Any:
    """As the server reads it: by its own schema."""
    schema = Path(importlib.util.find_spec("tritonclient").submodule_search_locations[0])  # type: ignore[union-attr,index]
    spec = importlib.util.spec_from_file_location("schema", schema / "grpc" / "model_config_pb2.py")
    assert spec is not None
    assert spec.loader is not None
    # The package itself would import a client and its network libraries.
    loaded = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # generated for a protobuf one version older
        spec.loader.exec_module(loaded)
    text = (model / "config.pbtxt").read_text()
    return text_format.Parse(text, loaded.ModelConfig()), loaded


@pytest.mark.parametrize(
    "options", [{"frames": 4, "any_frames": True, "any_size": True}, {"lookahead": 1}], ids=str
)
def test_a_triton_repository_fits_the_servers_schema(
    options: dict[str, Any], tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    made = engine.export_triton(tmp_path / "models", _model(), height=40, width=56, **options)
    assert made == tmp_path / "models" / "vinpaint"
    files = sorted(str(path.relative_to(made)) for path in made.rglob("*") if path.is_file())
    assert files == ["1/model.onnx", "config.pbtxt"]
    assert [path.name for path in made.parent.iterdir()] == ["vinpaint"]
    config, schema = _configuration(made)
    assert (config.name, config.backend, config.max_batch_size) == ("vinpaint", "onnxruntime", 0)
    session = onnxruntime.InferenceSession(
        made / "1" / "model.onnx", providers=["CPUExecutionProvider"]
    )
    types = {"tensor(uint8)": schema.TYPE_UINT8, "tensor(float)": schema.TYPE_FP32}
    for ports, given in (
        (config.input, session.get_inputs()),
        (config.output, session.get_outputs()),
    ):
        assert [(port.name, port.data_type, list(port.dims)) for port in ports] == [
            (g.name, types[g.type], [-1 if isinstance(d, str) else d for d in g.shape])
            for g in given
        ]
    with pytest.raises(InputError, match="vinpaint exists; remove it"):
        engine.export_triton(tmp_path / "models", _model(), height=40, width=56, **options)


def test_an_engine_goes_into_a_triton_repository(cache: Path, tmp_path: Path) -> None:
    built = replace(SPEC, backend="tensorrt", context=1)
    path = Store().write(built, b"code")
    made = engine.export_triton(tmp_path, engine=path, name="holes")
    assert (made / "1" / "model.plan").read_bytes() == b"code"
    config, schema = _configuration(made)
    assert (config.name, config.platform) == ("holes", "tensorrt_plan")
    assert [(i.name, list(i.dims)) for i in config.input] == [
        ("frames", [4, 16, 16, 3]),
        ("mask", [4, 16, 16]),
        ("live", [4]),
    ]
    assert [(o.name, list(o.dims)) for o in config.output] == [
        ("completed", [2, 16, 16, 3]),
        ("invalid", [1]),
    ]
    assert {port.data_type for port in (*config.input, *config.output)} == {schema.TYPE_UINT8}
    assert path.parent == cache


def test_what_triton_cannot_serve_is_refused(cache: Path, tmp_path: Path) -> None:
    store = Store()
    for spec, of in (
        (replace(SPEC, backend="tensorrt_rtx"), "tensorrt_rtx"),
        (SPEC, "openvino"),
        (replace(SPEC, backend="tensorrt", frames=1, lookahead=2), "streams"),
    ):
        with pytest.raises(InputError, match=f"a TensorRT engine of clips, got one of {of};"):
            engine.export_triton(tmp_path, engine=store.write(spec, b"code"))
    changed = store.write(replace(SPEC, backend="tensorrt"), b"code")
    changed.write_bytes(changed.read_bytes() + b" ")
    with pytest.raises(InputError, match="cut off or changed"):
        engine.export_triton(tmp_path, engine=changed)
    with pytest.raises(InputError, match="expected either networks or an engine"):
        engine.export_triton(tmp_path)
    with pytest.raises(InputError, match=r"--name: expected letters, digits, .*, got '\.\./x'"):
        engine.export_triton(tmp_path, engine=changed, name="../x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache"]
    assert any(cache.iterdir())


def test_what_an_engine_is_given_is_checked(cache: Path) -> None:
    pytest.importorskip("openvino")
    path = engine.compile(_model(), backend="openvino", frames=2, height=16, width=16)
    run = engine.load(path)
    frames, mask = torch.zeros(2, 16, 16, 3, dtype=torch.uint8), torch.zeros(2, 16, 16).byte()
    live = torch.ones(2, dtype=torch.uint8)
    completed, invalid = run(frames, mask, live)
    assert torch.equal(completed, frames)
    assert invalid.tolist() == [0]
    for given, message in (
        ((frames, mask), "expected frames, mask, live, got 2 inputs"),
        ((frames.numpy(), mask, live), "frames: expected a tensor, got ndarray"),
        ((frames.float(), mask, live), r"frames: expected torch.uint8 .*, got torch.float32"),
        ((frames, mask[:1], live), r"mask: .* \(2, 16, 16\) on cpu, got torch.uint8 \(1, 16, 16\)"),
    ):
        with pytest.raises(InputError, match=message):
            run(*given)
    assert path.parent == cache


# --- engine files ---------------------------------------------------------------------------------

SPEC = Spec("openvino", "1", "CPU: a", "weights", 1, 4, 0, 16, 16, "fp32")


def test_an_engine_file_is_read_back(tmp_path: Path) -> None:
    store = Store(tmp_path / "engines")
    path = store.write(SPEC, b"code\nand more")
    assert path.parent == store.folder
    assert store.read(path, SPEC) == (SPEC, b"code\nand more")
    assert sorted(p.name for p in store.folder.iterdir()) == sorted(["secret", path.name])
    assert (store.folder / "secret").stat().st_mode & 0o777 == 0o600
    assert store.folder.stat().st_mode & 0o777 == 0o700


def test_what_a_build_measured_is_kept_for_the_next(tmp_path: Path) -> None:
    store = Store(tmp_path / "engines")
    assert store.timings(SPEC) == b""
    store.keep_timings(SPEC, b"measured\nthis")
    assert store.timings(replace(SPEC, height=32)) == b"measured\nthis"
    for other in (replace(SPEC, library="2"), replace(SPEC, target="CPU: b")):
        assert store.timings(other) == b""
    (file,) = store.folder.glob("*.timings")
    file.write_bytes(file.read_bytes() + b" ")
    assert store.timings(SPEC) == b""  # changed by whomever


def test_a_folder_or_a_secret_that_is_not_ones_own_is_refused(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(InputError, match="can be written by others"):
        Store(shared).write(SPEC, b"code")
    assert shared.stat().st_mode & 0o777 == 0o777  # nobody else is locked out
    store = Store(tmp_path / "engines")
    path = store.write(SPEC, b"code")
    secret = store.folder / "secret"
    secret.chmod(0o644)
    with pytest.raises(InputError, match="is not a secret that this user alone can read"):
        store.read(path)
    secret.chmod(0o600)
    secret.write_bytes(b"")
    with pytest.raises(InputError, match="is not a secret"):
        store.read(path)
    secret.unlink()
    with pytest.raises(InputError, match="no engine is known to be of this installation"):
        store.read(path)
    assert not secret.exists()  # reading makes none


def test_a_changed_foreign_or_outdated_engine_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "engines")
    path = store.write(SPEC, b"code")
    whole = path.read_bytes()
    for content in (whole[:-1], whole + b" ", whole.replace(b'"CPU: a"', b'"CPU: b"'), MAGIC):
        path.write_bytes(content)
        with pytest.raises(InputError, match="cut off or changed, or was not built by this"):
            store.read(path)
    path.write_bytes(b"something else")
    with pytest.raises(InputError, match="is no engine file of this version"):
        store.read(path)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        store.read(tmp_path / "nowhere.engine")
    other = Store(tmp_path / "other").write(SPEC, b"code")
    with pytest.raises(InputError, match="not built by this installation"):
        store.read(other)
    path.write_bytes(whole)
    newer = replace(SPEC, library="2")
    with pytest.raises(InputError, match="is of another library: expected 2, got 1; compile it"):
        store.read(path, newer)
    assert store.path(newer) != path


def test_a_damaged_engine_is_built_again(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino, "library", lambda _: "1")
    monkeypatch.setattr(openvino, "target", lambda *_: "CPU: a")
    monkeypatch.setattr(openvino, "build", lambda *_: b"code")
    request: Any = {"backend": "openvino", "frames": 4, "height": 16, "width": 16}
    path = engine.compile(_model(), **request)
    assert path.parent == cache
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(InputWarning, match=r"cut off or changed.*it is built again"):
        assert engine.compile(_model(), **request) == path
    assert Store().read(path)[1] == b"code"
    # A file that the user named is refused, and replaced on request alone.
    named = engine.compile(_model(), **request, output=tmp_path / "mine.engine")
    named.write_bytes(named.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"cut off or changed.*--rebuild replaces it"):
        engine.compile(_model(), **request, output=named)
    assert engine.compile(_model(), **request, output=named, rebuild=True) == named
    assert Store().read(named)[1] == b"code"
    monkeypatch.setattr(openvino, "library", lambda _: "2")
    with pytest.raises(InputError, match="was built by openvino 1, and 2 is here; compile it"):
        engine.load(named)


BUILD = """
import sys, time
from vinpaint.engine.store import Spec, Store

store, spec = Store(sys.argv[1]), Spec("openvino", "1", "CPU: a", "weights", 1, 4, 0, 16, 16, "fp32")
print("ready", flush=True)
sys.stdin.readline()
with store.building(spec):
    if not store.path(spec).exists():
        time.sleep(0.3)
        store.write(spec, b"x" * 5_000_000)
        print("built")
"""


def test_of_two_processes_one_builds(tmp_path: Path) -> None:
    both = [
        subprocess.Popen(
            [sys.executable, "-c", BUILD, str(tmp_path / "engines")],
            cwd=tmp_path,  # or Python would find the sources
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate()[0] for process in both]
    assert sorted(outputs) == ["", "built\n"]
    assert [process.returncode for process in both] == [0, 0]
    store = Store(tmp_path / "engines")
    assert len(store.read(store.path(SPEC), SPEC)[1]) == 5_000_000


def test_a_build_that_fails_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "library", lambda _: "1")
    monkeypatch.setattr(openvino, "target", lambda *_: "CPU: a")

    def killed(*_: Any) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(openvino, "build", killed)
    with pytest.raises(KeyboardInterrupt):
        engine.compile(_model(), backend="openvino", frames=4, height=16, width=16)
    assert not [path for path in cache.iterdir() if path.suffix == ".engine"]


def test_the_digest_is_that_of_the_weights() -> None:
    model = _model()
    digest = compiling.weights_digest(model)
    assert digest == compiling.weights_digest(_model())
    assert digest == compiling.weights_digest(Inpainter(_model()).model)
    with torch.no_grad():
        model.comb.conv4.weight[0, 0, 0, 0, 0] += 1
    assert digest != compiling.weights_digest(model)
    assert digest != compiling.weights_digest(_model(composite_guidance=False))


def test_what_was_carried_travels_as_bytes() -> None:
    from vinpaint.engine.painting import graph_bytes
    from vinpaint.painting import clip_of

    unknown = np.array([[0, 1e-4, 0.5, 0.9999, 1]], np.float32)
    given = Given(np.zeros((1, 5, 3), np.uint8), (unknown > 0).view(np.uint8), unknown)
    _, found = graph_bytes(clip_of([given], whole_region(1, 5, None, WORKING_HOLE)))
    assert found[0, 0, 0].tolist() == [0, 1, 128, 254, 255]
    _, found = graph_bytes(
        clip_of([given._replace(unknown=None)], whole_region(1, 5, None, WORKING_HOLE))
    )
    assert found[0, 0, 0].tolist() == [0, 255, 255, 255, 255]


def test_one_name_for_every_precision() -> None:
    assert set(export.DTYPES) == set(openvino.HINTS)
    assert set(tensorrt.EXTRAS) | {"openvino"} == set(engine.BACKENDS)
