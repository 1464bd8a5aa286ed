# SPDX-License-Identifier: Apache-2.0
"""Putting the fill into a frame, so that nothing else of the frame changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vinpaint.video.color import ColorConverter, Rgb, plane_rows

if TYPE_CHECKING:
    import av

    from vinpaint.video.orientation import Orientation

Mask = npt.NDArray[Any]
"""(H, W), 0 outside the hole; bool, uint8 (255 is full) or float (1 is full)."""
Box = tuple[int, int, int, int]

# The fill is converted in a block around the hole: whole chroma samples (at most 4 pixels), and
# further out than the chroma filter reaches.
_ALIGN = 8
_MARGIN = 16


def hole_box(hole: npt.NDArray[np.bool_]) -> Box | None:
    """(top, bottom, left, right) of the hole, ends exclusive, or None without a hole."""
    rows = np.flatnonzero(hole.any(axis=1))
    if not rows.size:
        return None
    columns = np.flatnonzero(hole[rows[0] : rows[-1] + 1].any(axis=0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def blend(known: Rgb, fill: Rgb, mask: Mask) -> Rgb:
    """``known`` where the mask is 0, ``fill`` where it is full, in between in proportion.

    known, fill: (H, W, C), one dtype. mask: (H, W), bool, uint8 (255 is full) or float (1 is).
    Rounded once.
    """
    full = 255 if mask.dtype == np.uint8 else 1
    hole = mask > 0
    if np.array_equal(hole, mask >= full):
        return np.where(hole[..., None], fill, known)
    weight = (mask.astype(np.float32) / np.float32(full)).clip(0, 1)[..., None]
    mixed = known + weight * (fill.astype(np.float32) - known)
    return np.where(hole[..., None], np.rint(mixed).astype(known.dtype), known)


def composite_native(
    native: av.VideoFrame,
    known: Rgb,
    fill: Rgb,
    mask: Mask,
    *,
    orientation: Orientation,
    converter: ColorConverter,
) -> None:
    """Write the fill into the planes of ``native``, inside the hole only, in place.

    native: the decoded frame, in a format of :func:`~vinpaint.video.color.composable_format`.
    known, fill: (H, W, 3) pixels of the frame and of the fill. mask: (H, W), see :func:`blend`.
    These three are in display orientation.

    A sample that belongs to one pixel changes only if that pixel is in the hole. A chroma
    sample that several pixels share changes if any of them is in the hole; the luma of its
    known pixels stays. The alpha channel stays.
    """
    known = orientation.to_stored(known)
    fill = orientation.to_stored(fill)
    mask = orientation.to_stored(mask)
    hole = mask > 0
    box = hole_box(hole)
    if box is None:
        return
    height, width = hole.shape
    top = max(0, (box[0] - _MARGIN) // _ALIGN * _ALIGN)
    left = max(0, (box[2] - _MARGIN) // _ALIGN * _ALIGN)
    block = np.s_[
        top : min(height, -(-(box[1] + _MARGIN) // _ALIGN) * _ALIGN),
        left : min(width, -(-(box[3] + _MARGIN) // _ALIGN) * _ALIGN),
    ]
    hole = hole[block]
    mixed = blend(known[block], fill[block], mask[block])
    source = converter.from_rgb(mixed, native.format.name)
    native.make_writable()
    for plane, (step_y, step_x, channels) in enumerate(_layout(native.format)):
        target = _samples(native, plane)
        patch = _samples(source, plane)
        changed = _any_of_block(hole, step_y, step_x)
        y, x = top // step_y, left // step_x
        rows, columns = changed.shape
        region = target[y : y + rows, x : x + columns, channels]
        np.copyto(region, patch[:, :, channels], where=changed[..., None])


def _layout(layout: av.VideoFormat) -> list[tuple[int, int, slice]]:
    """For each plane: pixels a sample covers down and across, and its bytes that are colour."""
    steps = []
    for plane in range(1 + max(c.plane for c in layout.components)):
        components = [c for c in layout.components if c.plane == plane]
        across, down = 1, 1
        if any(c.is_chroma for c in components):
            across, down = 16 // layout.chroma_width(16), 16 // layout.chroma_height(16)
        channels = slice(None)
        if any(c.is_alpha for c in components):
            depth = (components[0].bits + 7) // 8
            channels = slice(depth, None) if layout.name[0] == "a" else slice(0, -depth)
        steps.append((down, across, channels if len(components) > 1 else _alone(components[0])))
    return steps


def _alone(component: av.video.format.VideoFormatComponent) -> slice:
    return slice(0, 0) if component.is_alpha else slice(None)


def _samples(frame: av.VideoFrame, index: int) -> npt.NDArray[np.uint8]:
    """A view (rows, columns, bytes of a sample) of one plane."""
    plane = frame.planes[index]
    components = [c for c in frame.format.components if c.plane == index]
    if frame.format.is_planar:
        size = sum(-(-c.bits // 8) for c in components)
    else:
        size = frame.format.padded_bits_per_pixel // 8
    rows = plane_rows(frame, index)
    return rows[:, : plane.width * size].reshape(plane.height, plane.width, size)


def _any_of_block(hole: npt.NDArray[np.bool_], down: int, across: int) -> npt.NDArray[np.bool_]:
    if down == across == 1:
        return hole
    height, width = hole.shape
    padded = np.pad(hole, ((0, -height % down), (0, -width % across)))
    blocks = padded.reshape(padded.shape[0] // down, down, padded.shape[1] // across, across)
    return np.asarray(blocks.any(axis=(1, 3)))
