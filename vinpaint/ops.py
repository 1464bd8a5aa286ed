# SPDX-License-Identifier: Apache-2.0
"""The operators, typed: convolution with batch norm, ReLU and residual, the loss inside the hole, and
the way from frames to the networks and back.

Clips are (N, C, F, H, W). Results are channels last (``torch.channels_last_3d``); inputs of another
layout are converted first. A kernel of depth 1 makes a convolution two-dimensional, frame by frame.
:mod:`vinpaint.reference` has the same functions in plain torch.

Padding is implied. A convolution takes odd kernels ``k`` and pads ``dilation * (k - 1) / 2``, so its
output has ``ceil(size / stride)`` pixels; a transposed one pads ``(k - stride) / 2``, so its output
has ``size * stride``. Strides are 1 or 2.

On a GPU float32 follows torch's TF32 setting for cuDNN (``torch.backends.cudnn.conv.fp32_precision``),
which ``torch.compile`` reads once. Under ``torch.autocast`` the convolutions run in autocast's dtype with float32 statistics, and
:func:`masked_l1` runs in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.library import register_autograd, register_fake

from vinpaint import _extension  # noqa: F401 - registers torch.ops.vinpaint

__all__ = [
    "WeightCache",
    "composite_frames",
    "conv_bias_relu",
    "conv_bn_relu",
    "follow_flow",
    "masked_l1",
    "prepare_frames",
]

_ops = torch.ops.vinpaint


def _autocast_dtype(x: Tensor) -> torch.dtype | None:
    """Dtype that autocast wants on this device; None if autocast is off or does not touch ``x``."""
    device = x.device.type
    if not x.is_floating_point() or x.dtype == torch.float64 or device == "meta":
        return None
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


def _cast(t: Tensor | None, dtype: torch.dtype | None) -> Tensor | None:
    return t if t is None or dtype is None else t.to(dtype)


def _accumulation_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


@torch.compiler.assume_constant_result
def _cudnn_allows_tf32() -> bool:
    return torch.backends.cudnn.conv.fp32_precision == "tf32"  # type: ignore[attr-defined]


def _allow_tf32(x: Tensor) -> bool:
    """Whether float32 convolutions of ``x`` may round their factors to TF32: torch's setting for cuDNN."""
    return x.is_cuda and x.dtype == torch.float32 and _cudnn_allows_tf32()


def _no_double_backward(op: str) -> None:
    """Makes a second derivative an error that says so."""

    def backward(ctx: Any, *grads: Tensor) -> NoReturn:  # noqa: ARG001
        message = f"{op}: a second derivative (double backward) is not supported"
        raise RuntimeError(message)

    register_autograd(f"vinpaint::_{op}_backward", backward)


def _refuse_forward_mode(op: str, *inputs: Tensor | None) -> None:
    """Forward-mode differentiation would lose the tangent without a word: an error says so."""
    if forward_ad._current_level < 0:
        return
    if any(t is not None and forward_ad.unpack_dual(t).tangent is not None for t in inputs):
        raise NotImplementedError(f"{op}: forward-mode differentiation is not supported")


def _or_none(t: Tensor, needed: bool) -> Tensor | None:
    return t if needed else None


def _check_devices(op: str, like: str, on: Tensor, **others: Tensor | None) -> None:
    """Of all fakes: one that is called because some of the tensors are on ``meta`` sees the others too."""
    for name, t in others.items():
        if t is not None and t.device != on.device:
            message = f"must be on the device of {like}, {on.device}, got {t.device}"
            raise RuntimeError(f"{op}: {name} {message}")


def _check_convolution(
    op: str,
    x: Tensor,
    skip: Tensor | None,
    weight: Tensor,
    transposed: bool,
    **others: Tensor | None,
) -> None:
    """Devices and channels; sizes that may be symbolic are left to the operator."""
    _check_devices(op, "x", x, weight=weight, skip=skip, **others)
    for name, t in (("x", x), ("weight", weight), ("skip", skip)):
        if t is not None and t.dim() != 5:
            raise RuntimeError(f"{op}: {name} must have 5 dimensions, got {t.dim()}")
    channels = x.shape[1] + (0 if skip is None else skip.shape[1])
    weight_in = weight.shape[0 if transposed else 1]
    if weight_in != channels:
        raise RuntimeError(f"{op}: weight expects Cin = {channels}, got {weight_in}")


def _empty_channels_last(like: Tensor, shape: Sequence[int]) -> Tensor:
    n, c, f, h, w = shape
    return like.new_empty((n, f, h, w, c)).permute(0, 4, 1, 2, 3)


def _output_shape(
    x: Tensor, weight: Tensor, stride: Sequence[int], transposed: bool
) -> tuple[int, ...]:
    channels = weight.shape[1 if transposed else 0]
    sizes = zip(x.shape[2:], stride, strict=True)
    if transposed:
        return (x.shape[0], channels, *(size * s for size, s in sizes))
    return (x.shape[0], channels, *((size + s - 1) // s for size, s in sizes))


def _input_gradients_fake(
    x: Tensor, skip: Tensor | None, weight: Tensor, need_input: bool
) -> tuple[Tensor, Tensor, Tensor]:
    def part(t: Tensor | None) -> Tensor:
        if t is None or not need_input:
            return x.new_empty((0,))
        return _empty_channels_last(t, t.shape)

    return part(x), part(skip), _empty_channels_last(weight, weight.shape)


# --- conv_bn_relu ---------------------------------------------------------------------------------


def conv_bn_relu(
    x: Tensor,
    weight: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *,
    skip: Tensor | None = None,
    residual: Tensor | None = None,
    stride: Sequence[int] = (1, 1, 1),
    dilation: Sequence[int] = (1, 1, 1),
    transposed: bool = False,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor, Tensor]:
    """Convolution, batch norm with the statistics of this batch, ReLU, plus ``residual``.

    Args:
        x: (N, Cx, F, H, W), float32, bfloat16, float16 or (CPU) float64.
        weight: (Cout, Cx + Cs, kF, kH, kW); (Cx + Cs, Cout, kF, kH, kW) if ``transposed``.
        gamma: (Cout,) factor of the normalised value; float32, or float64 with float64.
        beta: (Cout,) added to it.
        skip: (N, Cs, F, H, W), read as if concatenated after ``x`` along the channels.
        residual: added after the ReLU; of the output's shape and dtype.
        stride: along F, H, W.
        dilation: along F, H, W.
        transposed: whether the convolution is transposed; dilation is then 1.
        eps: added to the variance.

    Returns:
        ``out`` (N, Cout, F', H', W') of x's dtype, and ``mean`` and biased ``var`` (Cout,) of the
        convolution's output, float32 (float64 with float64). No gradient flows through the latter.

    Raises:
        RuntimeError: a shape, dtype or device does not fit; the message names the argument.

    Equivalent to::

        pre = F.conv3d(torch.cat([x, skip], 1), weight, None, stride, padding, dilation)
        out = F.relu(F.batch_norm(pre, None, None, gamma, beta, True, 0.0, eps)) + residual
    """
    _refuse_forward_mode("conv_bn_relu", x, weight, gamma, beta, skip, residual)
    dtype = _autocast_dtype(x)
    out, _, mean, var = _ops.conv_bn_relu(
        _cast(x, dtype),
        _cast(skip, dtype),
        _cast(weight, dtype),
        gamma,
        beta,
        _cast(residual, dtype),
        stride,
        dilation,
        transposed,
        eps,
        _allow_tf32(x) and dtype is None,
    )
    return out, mean, var


@register_fake("vinpaint::conv_bn_relu")
def _(
    x: Tensor,
    skip: Tensor | None,
    weight: Tensor,
    gamma: Tensor,
    beta: Tensor,
    residual: Tensor | None,
    stride: Sequence[int],
    dilation: Sequence[int],  # noqa: ARG001
    transposed: bool,
    eps: float,  # noqa: ARG001
    allow_tf32: bool,  # noqa: ARG001
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    others = {"gamma": gamma, "beta": beta, "residual": residual}
    _check_convolution("conv_bn_relu", x, skip, weight, transposed, **others)
    shape = _output_shape(x, weight, stride, transposed)
    dtype = _accumulation_dtype(x)
    mean, var = x.new_empty((shape[1],), dtype=dtype), x.new_empty((shape[1],), dtype=dtype)
    return _empty_channels_last(x, shape), _empty_channels_last(x, shape), mean, var


@register_fake("vinpaint::_conv_bn_relu_backward")
def _(
    grad_out: Tensor,  # noqa: ARG001
    x: Tensor,
    skip: Tensor | None,
    weight: Tensor,
    gamma: Tensor,
    beta: Tensor,
    pre: Tensor,  # noqa: ARG001
    mean: Tensor,  # noqa: ARG001
    var: Tensor,  # noqa: ARG001
    stride: Sequence[int],  # noqa: ARG001
    dilation: Sequence[int],  # noqa: ARG001
    transposed: bool,  # noqa: ARG001
    eps: float,  # noqa: ARG001
    allow_tf32: bool,  # noqa: ARG001
    need_input: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    dtype = _accumulation_dtype(x)
    return (
        *_input_gradients_fake(x, skip, weight, need_input),
        x.new_empty(gamma.shape, dtype=dtype),
        x.new_empty(beta.shape, dtype=dtype),
    )


def _conv_bn_relu_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, skip, weight, gamma, beta, _, *ctx.options = inputs
    _, pre, mean, var = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(pre, mean, var)
    ctx.save_for_backward(x, skip, weight, gamma, beta, pre, mean, var)


def _conv_bn_relu_gradients(
    ctx: Any, grad_out: Tensor | None, *_: Tensor | None
) -> tuple[Tensor | None, ...]:
    if grad_out is None:
        return (None,) * 11
    x, skip, weight, gamma, beta, pre, mean, var = ctx.saved_tensors
    need_x, need_skip, need_weight, need_gamma, need_beta, need_residual = ctx.needs_input_grad[:6]
    grad_x, grad_skip, grad_weight, grad_gamma, grad_beta = _ops._conv_bn_relu_backward(
        grad_out, x, skip, weight, gamma, beta, pre, mean, var, *ctx.options, need_x or need_skip
    )
    return (
        _or_none(grad_x, need_x),
        _or_none(grad_skip, need_skip),
        _or_none(grad_weight, need_weight),
        _or_none(grad_gamma.to(gamma.dtype), need_gamma),
        _or_none(grad_beta.to(beta.dtype), need_beta),
        _or_none(grad_out, need_residual),
        None,
        None,
        None,
        None,
        None,
    )


register_autograd(
    "vinpaint::conv_bn_relu", _conv_bn_relu_gradients, setup_context=_conv_bn_relu_setup
)
_no_double_backward("conv_bn_relu")


# --- conv_bias_relu -------------------------------------------------------------------------------


class WeightCache:
    """What :func:`conv_bias_relu` makes of a layer's weight on a CPU before it convolves, kept for its next calls.

    It holds the weight and about twice its bytes. A layer's prepared weight has up to two forms, by the size of the maps.
    Another weight, or the same one changed in place, is prepared anew; a change behind torch's back (``weight.data.mul_``,
    or in place of a weight made under ``torch.inference_mode``) is not seen. Several threads may use one. A copy is empty.
    """

    def __init__(self) -> None:
        self._entry: tuple[Tensor | None, Any, dict[Any, list[Tensor]]] = (None, None, {})

    def get(
        self, x: Tensor, skip: Tensor | None, weight: Tensor, *geometry: Any
    ) -> list[Tensor] | None:
        """The weight prepared for these inputs; ``None`` where the kernel reads it as it is."""
        form: int = _ops._weight_form(x, skip, weight, *geometry)
        if form == 0:
            return None
        version = 0 if weight.is_inference() else weight._version
        state = version, weight.data_ptr(), weight.dtype
        of, known, forms = self._entry
        if of is not weight or known != state:
            forms = {}
            self._entry = weight, state, forms
        stride, dilation, transposed = geometry
        key = form, x.shape[1], tuple(stride), tuple(dilation), transposed
        if key not in forms:
            forms[key] = _ops._prepare_weight(x, skip, weight, *geometry)
        return forms[key]

    def clear(self) -> None:
        """Let go of the weight and what was made of it."""
        self._entry = None, None, {}

    def __reduce__(self) -> tuple[type[WeightCache], tuple[()]]:
        return WeightCache, ()


@register_fake("vinpaint::_weight_form")
def _(*_inputs: Any) -> int:
    return 0  # a fake has nothing to prepare


def conv_bias_relu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    skip: Tensor | None = None,
    residual: Tensor | None = None,
    stride: Sequence[int] = (1, 1, 1),
    dilation: Sequence[int] = (1, 1, 1),
    transposed: bool = False,
    relu: bool = True,
    cache: WeightCache | None = None,
) -> Tensor:
    """Convolution, bias, ReLU if asked for, plus ``residual``.

    This is :func:`conv_bn_relu` with the batch norm folded into weight and bias, for inference, and
    with ``relu=False`` the linear last layer of a network.

    Args:
        x: (N, Cx, F, H, W), float32, bfloat16, float16 or (CPU) float64.
        weight: (Cout, Cx + Cs, kF, kH, kW); (Cx + Cs, Cout, kF, kH, kW) if ``transposed``.
        bias: (Cout,), any floating dtype; taken in float32 on a GPU, rounded to x's on a CPU.
        skip: (N, Cs, F, H, W), read as if concatenated after ``x`` along the channels.
        residual: added after the ReLU; of the output's shape and dtype.
        stride: along F, H, W.
        dilation: along F, H, W.
        transposed: whether the convolution is transposed; dilation is then 1.
        relu: whether to apply the ReLU.
        cache: of this layer, whose weight stays the same from call to call: a CPU then prepares it once. Not looked at
            while learning.

    Returns:
        (N, Cout, F', H', W') of x's dtype.

    Raises:
        RuntimeError: a shape, dtype or device does not fit; the message names the argument.

    Equivalent to::

        F.relu(F.conv3d(torch.cat([x, skip], 1), weight, bias, stride, padding, dilation)) + residual
    """
    _refuse_forward_mode("conv_bias_relu", x, weight, bias, skip, residual)
    dtype = _autocast_dtype(x)
    x, weight, skip, residual = (_cast(t, dtype) for t in (x, weight, skip, residual))  # type: ignore[assignment]
    # The backward reads the ReLU's mask off the output, so a residual may not hide it.
    learning = torch.is_grad_enabled() and any(
        t is not None and t.requires_grad for t in (x, weight, bias, skip, residual)
    )
    keeps = x.device.type == "cpu" and dtype is None and not learning
    if cache is not None and keeps and not torch.compiler.is_compiling():
        geometry = stride, dilation, transposed
        prepared = cache.get(x, skip, weight, *geometry)
        if prepared is not None:
            found: Tensor = _ops._conv_bias_relu_prepared(
                x, skip, weight, prepared, bias, residual, *geometry, relu
            )
            return found
    fused = None if learning else residual
    out: Tensor = _ops.conv_bias_relu(
        x, skip, weight, bias, fused, stride, dilation, transposed, relu, _allow_tf32(x)
    )
    return out + residual if learning and residual is not None else out


@register_fake("vinpaint::conv_bias_relu")
def _(
    x: Tensor,
    skip: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    stride: Sequence[int],
    dilation: Sequence[int],  # noqa: ARG001
    transposed: bool,
    relu: bool,  # noqa: ARG001
    allow_tf32: bool,  # noqa: ARG001
) -> Tensor:
    others = {"bias": bias, "residual": residual}
    _check_convolution("conv_bias_relu", x, skip, weight, transposed, **others)
    return _empty_channels_last(x, _output_shape(x, weight, stride, transposed))


@register_fake("vinpaint::_conv_bias_relu_backward")
def _(
    grad_out: Tensor,  # noqa: ARG001
    x: Tensor,
    skip: Tensor | None,
    weight: Tensor,
    out: Tensor,
    stride: Sequence[int],  # noqa: ARG001
    dilation: Sequence[int],  # noqa: ARG001
    transposed: bool,  # noqa: ARG001
    relu: bool,  # noqa: ARG001
    allow_tf32: bool,  # noqa: ARG001
    need_input: bool,
    has_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad_bias = (
        x.new_empty((out.shape[1],), dtype=_accumulation_dtype(x))
        if has_bias
        else x.new_empty((0,))
    )
    return *_input_gradients_fake(x, skip, weight, need_input), grad_bias


def _conv_bias_relu_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, skip, weight, bias, residual, *ctx.options = inputs
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.has_residual = residual is not None
    relu = ctx.options[3]
    ctx.save_for_backward(x, skip, weight, output if relu else None)


def _conv_bias_relu_gradients(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
    x, skip, weight, out = ctx.saved_tensors
    if ctx.has_residual and out is not None:
        message = "conv_bias_relu: the operator has no gradient with a residual; use vinpaint.ops"
        raise RuntimeError(message)
    need_x, need_skip, need_weight, need_bias, need_residual = ctx.needs_input_grad[:5]
    grad_x, grad_skip, grad_weight, grad_bias = _ops._conv_bias_relu_backward(
        grad_out,
        x,
        skip,
        weight,
        grad_out if out is None else out,
        *ctx.options,
        need_x or need_skip,
        need_bias,
    )
    return (
        _or_none(grad_x, need_x),
        _or_none(grad_skip, need_skip),
        _or_none(grad_weight, need_weight),
        grad_bias.to(ctx.bias_dtype) if need_bias else None,
        _or_none(grad_out, need_residual),
        None,
        None,
        None,
        None,
        None,
    )


register_autograd(
    "vinpaint::conv_bias_relu", _conv_bias_relu_gradients, setup_context=_conv_bias_relu_setup
)
_no_double_backward("conv_bias_relu")


# --- masked_l1 ------------------------------------------------------------------------------------


def masked_l1(pred: Tensor, target: Tensor, mask: Tensor, *, per_frame: bool = False) -> Tensor:
    """Mean absolute difference inside the hole, averaged over clips or over frames.

    A clip (or frame) without a hole counts as 0. Sums run in a fixed order: the same input gives the
    same bits. Nothing waits for the device.

    Args:
        pred: (N, C, F, H, W), float32, bfloat16, float16 or (CPU) float64, any strides.
        target: of pred's shape and dtype.
        mask: (N, 1, F, H, W), 1 in the hole and 0 elsewhere, any dtype. Gets no gradient.
        per_frame: whether each frame's hole has the same weight, however large it is; otherwise each
            clip's has.

    Returns:
        float32 scalar (float64 with float64), in the units of pred.

    Raises:
        RuntimeError: a shape, dtype or device does not fit; the message names the argument.

    Equivalent to::

        dims = (1, 3, 4) if per_frame else (1, 2, 3, 4)
        error = (mask * (pred - target).abs()).sum(dims) / (mask.sum(dims) * C)
        error.nan_to_num(0).mean()
    """
    _refuse_forward_mode("masked_l1", pred, target)
    if _autocast_dtype(pred) is not None:
        pred, target = pred.float(), target.float()
    loss: Tensor = _ops.masked_l1(pred, target, mask, per_frame)[0]
    return loss


@register_fake("vinpaint::masked_l1")
def _(
    pred: Tensor,
    target: Tensor,
    mask: Tensor,
    per_frame: bool,  # noqa: ARG001
) -> tuple[Tensor, Tensor]:
    _check_devices("masked_l1", "pred", pred, target=target, mask=mask)
    dtype = _accumulation_dtype(pred)
    scale_shape = (pred.shape[0], pred.shape[2])
    return pred.new_empty((), dtype=dtype), pred.new_empty(scale_shape, dtype=dtype)


@register_fake("vinpaint::_masked_l1_backward")
def _(
    grad: Tensor,
    pred: Tensor,
    target: Tensor,
    mask: Tensor,
    scale: Tensor,
) -> Tensor:
    others = {"target": target, "mask": mask, "grad": grad, "scale": scale}
    _check_devices("_masked_l1_backward", "pred", pred, **others)
    return _empty_channels_last(pred, pred.shape)


def _masked_l1_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    pred, target, mask, _ = inputs
    _, scale = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(scale)
    ctx.save_for_backward(pred, target, mask, scale)


def _masked_l1_gradients(
    ctx: Any, grad: Tensor | None, _: Tensor | None
) -> tuple[Tensor | None, ...]:
    if grad is None:
        return None, None, None, None
    grad_pred = _ops._masked_l1_backward(grad, *ctx.saved_tensors)
    need_pred, need_target = ctx.needs_input_grad[:2]
    return (grad_pred if need_pred else None, -grad_pred if need_target else None, None, None)


register_autograd("vinpaint::masked_l1", _masked_l1_gradients, setup_context=_masked_l1_setup)
_no_double_backward("masked_l1")


# --- frames ---------------------------------------------------------------------------------------


def prepare_frames(
    frames: Tensor,
    mask: Tensor,
    mean: Tensor,
    *,
    dtype: torch.dtype,
    grid: int,
    full: bool = True,
    reduced: bool = True,
) -> tuple[Tensor, Tensor]:
    """What the two networks read of a clip, in one pass: mean-filled frames and their mask.

    Red, green and blue in [0, 1] with the mean in the hole, then the mask, 1 in the hole and 0
    elsewhere. Height and width grow to multiples of ``grid`` by copies of the last row and column. A
    pixel of the reduced clip is the average of four, hole or not; it is hole if any of the four is.

    Args:
        frames: (N, F, H, W, 3), uint8 or uint16.
        mask: (N, F, H, W), uint8 or bool, nonzero in the hole.
        mean: 3 values in [0, 1].
        dtype: of the results: float32, bfloat16, float16 or (CPU) float64.
        grid: an even number.
        full: whether the clip at full size is wanted.
        reduced: whether the clip at half the height and width is wanted.

    Returns:
        (N, 4, F, H', W') and (N, 4, F, H'/2, W'/2); (0,) for what is not wanted.

    Raises:
        RuntimeError: a shape, dtype or device does not fit; the message names the argument.

    Equivalent to::

        x = (frames / peak).permute(0, 4, 1, 2, 3)
        x, hole = (F.pad(t, (0, right, 0, bottom, 0, 0), "replicate") for t in (x, mask[:, None] != 0))
        small, small_hole = F.avg_pool3d(x, (1, 2, 2)), F.max_pool3d(hole, (1, 2, 2))
        full = torch.cat([torch.where(hole, mean, x), hole], 1)
        reduced = torch.cat([torch.where(small_hole, mean, small), small_hole], 1)
    """
    inputs: tuple[Tensor, Tensor] = _ops.prepare_frames(
        frames, mask, mean, dtype, grid, full, reduced
    )
    return inputs


@register_fake("vinpaint::prepare_frames")
def _(
    frames: Tensor,
    mask: Tensor,
    mean: Tensor,
    dtype: torch.dtype,
    grid: int,
    full: bool,
    reduced: bool,
) -> tuple[Tensor, Tensor]:
    _check_devices("prepare_frames", "frames", frames, mask=mask, mean=mean)
    n, f, h, w, _ = frames.shape
    height, width = ((size + grid - 1) // grid * grid for size in (h, w))
    like = frames.new_empty((0,), dtype=dtype)
    return (
        _empty_channels_last(like, (n, 4, f, height, width)) if full else like,
        _empty_channels_last(like, (n, 4, f, height // 2, width // 2))
        if reduced
        else like.new_empty((0,)),
    )


def composite_frames(completed: Tensor, frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The networks' pixels in the hole, the frames' own elsewhere, in one pass.

    Values are clamped to [0, 1] and rounded once, to the nearest integer, ties to even. Nothing waits
    for the device: what is not a number is counted, for the caller to look at when it likes.

    Args:
        completed: (N, 3, F, H', W'), float32, bfloat16, float16 or (CPU) float64; H' and W' may exceed
            the frames', what lies beyond is not read.
        frames: (N, F, H, W, 3), uint8 or uint16.
        mask: (N, F, H, W), uint8 or bool, nonzero in the hole.

    Returns:
        ``composited``, of frames' shape and dtype, and ``invalid``, an int32 scalar: how many values
        in the hole were NaN; they became 0.

    Raises:
        RuntimeError: a shape, dtype or device does not fit; the message names the argument.

    Equivalent to::

        fill = (completed[..., :H, :W].clamp(0, 1) * peak).round().permute(0, 2, 3, 4, 1)
        composited = torch.where(mask[..., None] != 0, fill.to(frames.dtype), frames)
    """
    results: tuple[Tensor, Tensor] = _ops.composite_frames(completed, frames, mask)
    return results


@register_fake("vinpaint::composite_frames")
def _(
    completed: Tensor,
    frames: Tensor,
    mask: Tensor,
) -> tuple[Tensor, Tensor]:
    _check_devices("composite_frames", "frames", frames, completed=completed, mask=mask)
    return frames.new_empty(frames.shape), frames.new_empty((), dtype=torch.int32)


def follow_flow(
    flow: Tensor,
    error: Tensor,
    hole: Tensor,
    *,
    frame: int,
    step: int,
    reach: int,
    cell: int = 1,
) -> tuple[Tensor, Tensor, Tensor]:
    """Follow each pixel of a frame's hole along the optical flow until it comes out of the hole.

    A pixel walks from frame to frame, at every frame by the flow that is bilinear between the grid's points, and stops
    at the first place whose nearest pixel is not in that frame's hole. It gets nowhere if it leaves the frame, if the
    errors' sum is not finite, or if ``reach`` or the window ends first. On the CPU.

    Args:
        flow: (F, h, w, 2) float32, from each frame of a window to the one ``step`` on: right and down, in pixels.
        error: (F, h, w) float32, pixels that the flow is expected to be off; infinite where there is no way.
        hole: (F, H, W) uint8 or bool, nonzero in the hole.
        frame: index in the window of the frame in question.
        step: 1 to walk to the frames after it, -1 to those before.
        reach: frames that it may walk.
        cell: the grid has a point in the middle of every ``cell`` x ``cell`` pixels.

    Returns:
        ``(source, place, error)``: (H, W) int32, index of the frame, -1 for nowhere and outside the hole; (H, W, 2)
        float32, column and row there; (H, W) float32, the errors on the way added up, infinite for nowhere.

    Raises:
        RuntimeError: a shape, dtype or number does not fit; the message names the argument.

    Equivalent to: see :func:`vinpaint.reference.follow_flow`.
    """
    found: tuple[Tensor, Tensor, Tensor] = _ops.follow_flow(
        flow, error, hole, frame, step, reach, cell
    )
    return found


@register_fake("vinpaint::follow_flow")
def _(
    flow: Tensor,
    error: Tensor,
    hole: Tensor,
    frame: int,  # noqa: ARG001
    step: int,  # noqa: ARG001
    reach: int,  # noqa: ARG001
    cell: int,  # noqa: ARG001
) -> tuple[Tensor, Tensor, Tensor]:
    _check_devices("follow_flow", "flow", flow, error=error, hole=hole)
    size = hole.shape[1:]
    return (
        flow.new_empty(size, dtype=torch.int32),
        flow.new_empty((*size, 2)),
        flow.new_empty(size),
    )
