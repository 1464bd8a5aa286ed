# SPDX-License-Identifier: Apache-2.0
"""Weights on disk: round trip, the shipped ones, bad folders."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vinpaint.errors import InputError
from vinpaint.inpainting import Inpainter
from vinpaint.nn import InpainterConfig, VideoInpainter
from vinpaint.pretrained import (
    CONFIG,
    SHIPPED,
    WEIGHTS,
    load_pretrained,
    save_pretrained,
    weights_folder,
)


def test_round_trip_keeps_configuration_and_values(tmp_path: Path) -> None:
    model = VideoInpainter(
        InpainterConfig(mode="2dcn", mean=(0.1, 0.2, 0.3), composite_guidance=False)
    )
    save_pretrained(model, tmp_path, dtype=torch.float32)
    loaded = load_pretrained(tmp_path)
    assert loaded.config == model.config
    assert not loaded.training
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_a_model_and_an_inpainter_come_from_a_folder_and_go_to_one(tmp_path: Path) -> None:
    model = VideoInpainter(InpainterConfig(mode="2dcn", width=0.25))
    model.save_pretrained(tmp_path / "mine")
    assert VideoInpainter.from_pretrained(tmp_path / "mine").config == model.config
    assert Inpainter.from_pretrained(tmp_path / "mine").model.config == model.config


def test_torch_hub_loads_both_from_the_folder_of_the_project(tmp_path: Path) -> None:
    """In a process of its own, in which nothing of vinpaint has been imported."""
    folder = Path(__file__).resolve().parents[1]
    script = f"""
import sys, torch
path = list(sys.path)
inpainter = torch.hub.load({str(folder)!r}, "inpainter", source="local", weights="combcn-s", device="cpu")
model = torch.hub.load({str(folder)!r}, "video_inpainter", source="local", weights="combcn-s")
assert sys.path == path
assert type(inpainter).__name__ == "Inpainter" and inpainter.model.config == model.config
assert not sys.modules["vinpaint"].__file__.startswith({str(folder)!r})
"""
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_weights_are_reached_by_their_name(name: str) -> None:
    folder = weights_folder(name)
    assert folder.name == name
    assert (folder / "README.md").is_file()  # the model card
    model = load_pretrained(name)
    assert model.config == load_pretrained(folder).config
    assert (model.config.width == 1) == (name == "combcn")


def test_shipped_weights_are_the_full_system_in_half_precision(tmp_path: Path) -> None:
    model = load_pretrained()
    assert model.config.mode == "combcn"
    assert sum(p.numel() for p in model.parameters()) == 6_556_691 + 8_667_299
    save_pretrained(model, tmp_path)
    assert 30e6 < (tmp_path / WEIGHTS).stat().st_size < 32e6


@pytest.mark.parametrize("missing", [WEIGHTS, CONFIG])
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    save_pretrained(VideoInpainter(InpainterConfig(mode="2dcn")), tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(InputError, match=missing):
        load_pretrained(tmp_path)


def test_the_folder_of_a_run_says_where_its_weights_are(tmp_path: Path) -> None:
    save_pretrained(VideoInpainter(InpainterConfig(width=0.1)), tmp_path / "weights")
    with pytest.raises(InputError, match="this is a run, whose weights are in its folder weights"):
        load_pretrained(tmp_path)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    save_pretrained(VideoInpainter(InpainterConfig(mode="2dcn")), tmp_path)
    (tmp_path / CONFIG).write_text('{"mode": "combcn", "mean": [0, 0, 0]}')
    with pytest.raises(InputError, match="does not hold a vinpaint model"):
        load_pretrained(tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"not safetensors at all")
    with pytest.raises(InputError, match="does not hold a vinpaint model"):
        load_pretrained(tmp_path)
    (tmp_path / CONFIG).write_text("[]")
    with pytest.raises(InputError, match="does not hold a vinpaint model"):
        load_pretrained(tmp_path)


def test_weights_are_whole_or_those_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = VideoInpainter(InpainterConfig(mode="2dcn", width=0.125))
    save_pretrained(before, tmp_path, dtype=torch.float32)
    (tmp_path / "README.md").write_text("a card")

    def full(_tensors: object, path: Path, **_options: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vinpaint.pretrained.save_file", full)
    with pytest.raises(OSError, match="No space"):
        save_pretrained(VideoInpainter(before.config), tmp_path)
    kept = load_pretrained(tmp_path).state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in before.state_dict().items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", CONFIG, WEIGHTS]
