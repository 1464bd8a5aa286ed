// SPDX-License-Identifier: Apache-2.0
// Every operator of this library: its schema and one comment each. Implementations register
// themselves in cpu/ and cuda/; fakes and gradients stand beside the Python functions in ops.py.
// Clips are (N, C, F, H, W). allow_tf32 says whether a GPU may round float32 factors to TF32.
// Sizes, padding and layout are described in convolution.h.

#include "tensor.h"

VINPAINT_LIBRARY(m) {
  // Convolution of x ++ skip, batch norm with this batch's statistics, ReLU, plus residual. `pre`
  // is the convolution's own output: the one large tensor that the backward needs.
  m.def(
      "conv_bn_relu(Tensor x, Tensor? skip, Tensor weight, Tensor gamma, Tensor beta, "
      "Tensor? residual, int[] stride, int[] dilation, bool transposed, float eps, "
      "bool allow_tf32) "
      "-> (Tensor out, Tensor pre, Tensor mean, Tensor var)");
  // Gradients of conv_bn_relu. What is absent or not needed comes back with no elements.
  m.def(
      "_conv_bn_relu_backward(Tensor grad_out, Tensor x, Tensor? skip, Tensor weight, "
      "Tensor gamma, Tensor beta, Tensor pre, Tensor mean, Tensor var, int[] stride, "
      "int[] dilation, bool transposed, float eps, bool allow_tf32, bool need_input) -> "
      "(Tensor grad_x, Tensor grad_skip, Tensor grad_weight, Tensor grad_gamma, Tensor grad_beta)");

  // Convolution of x ++ skip, bias, ReLU if asked for, plus residual: the batch norm folded away.
  m.def(
      "conv_bias_relu(Tensor x, Tensor? skip, Tensor weight, Tensor? bias, Tensor? residual, "
      "int[] stride, int[] dilation, bool transposed, bool relu, bool allow_tf32) -> Tensor");
  // Gradients of conv_bias_relu without residual: `out` is the activation, so its sign is the mask.
  m.def(
      "_conv_bias_relu_backward(Tensor grad_out, Tensor x, Tensor? skip, Tensor weight, "
      "Tensor out, int[] stride, int[] dilation, bool transposed, bool relu, bool allow_tf32, "
      "bool need_input, bool has_bias) -> (Tensor grad_x, Tensor grad_skip, Tensor grad_weight, "
      "Tensor grad_bias)");

  // On a CPU, for a weight that many calls read: the form in which its kernel wants the weight for
  // these inputs, 0 for as it is; the weight in that form; and conv_bias_relu with it, for
  // inference.
  m.def(
      "_weight_form(Tensor x, Tensor? skip, Tensor weight, int[] stride, int[] dilation, "
      "bool transposed) -> int");
  m.def(
      "_prepare_weight(Tensor x, Tensor? skip, Tensor weight, int[] stride, int[] dilation, "
      "bool transposed) -> Tensor[]");
  m.def(
      "_conv_bias_relu_prepared(Tensor x, Tensor? skip, Tensor weight, Tensor[] prepared, "
      "Tensor? bias, Tensor? residual, int[] stride, int[] dilation, bool transposed, bool relu) "
      "-> Tensor");

  // Mean absolute difference inside the hole, averaged over clips or frames; `scale` (N, F) is the
  // weight of each frame's absolute differences in the loss.
  m.def(
      "masked_l1(Tensor pred, Tensor target, Tensor mask, bool per_frame) "
      "-> (Tensor loss, Tensor scale)");
  // Gradient of masked_l1 with respect to pred; the one for target is its negative.
  m.def(
      "_masked_l1_backward(Tensor grad, Tensor pred, Tensor target, Tensor mask, Tensor scale) "
      "-> Tensor");

  // Frames (N, F, H, W, 3) and their mask as the networks read them: (N, 4, F, H', W') with H' and
  // W' multiples of `grid`, and the same at half the height and width. What is not asked for comes
  // back with no elements.
  m.def(
      "prepare_frames(Tensor frames, Tensor mask, Tensor mean, ScalarType dtype, int grid, "
      "bool full, bool reduced) -> (Tensor full, Tensor reduced)");
  // The networks' pixels in the hole, the frames' own elsewhere; and how many values in the hole
  // are NaN.
  m.def(
      "composite_frames(Tensor completed, Tensor frames, Tensor mask) "
      "-> (Tensor composited, Tensor invalid)");

  // Planes (B, C, h, w), 0 where not `known` (B, 1, h, w), with the hole filled by Laplace's
  // equation from coarse to fine, so many sweeps a size. On a CPU; nn/prefill.py says it in plain
  // torch.
  m.def("_harmonic_fill(Tensor pixels, Tensor known, int sweeps) -> Tensor");

  // From each pixel of a frame's hole along the flow, frame by frame, until it is no longer in a
  // hole: the frame where that is, or -1, the place there (column, row), and the errors on the way,
  // added up. `flow` (F, h, w, 2) and `error` (F, h, w) have a point for `cell` x `cell` pixels.
  m.def(
      "follow_flow(Tensor flow, Tensor error, Tensor hole, int frame, int step, int reach, "
      "int cell) -> (Tensor source, Tensor place, Tensor error)");
}
