// SPDX-License-Identifier: Apache-2.0
// Convolutions with fewer multiplications (Winograd's minimal filtering), for the shapes that hold
// most of both networks' work: kernels of 3 x 3 with stride 1 and transposed kernels of 4 x 4 with
// stride 2, any depth along the frames, two inputs read as one, bias, ReLU and residual included.
// Only pointers here; written for channels last.
#pragma once

#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>

namespace vinpaint::cpu {

enum class WinogradForm {
  k3x3 = 1,     // 3 x 3 taps, stride 1
  k3x3OnPairs,  // the same with a dilation of half the map or more
  k4x4Up,    // 4 x 4 taps, stride 2, transposed: the output is twice as high and wide as the inputs
  k4x4Down,  // 4 x 4 taps, stride 2, padding 1: the input gradient of k4x4Up; one input
};

struct Winograd {
  WinogradForm form;
  const void* x;           // (N, F, H, W, Cx), dense
  const void* skip;        // (N, F, H, W, Cs), dense; null without a second input
  int64_t x_channels;      // Cx
  int64_t skip_channels;   // Cs, 0 without a second input
  int64_t batch;           // N
  int64_t frames;          // F, of inputs and output
  int64_t height;          // H of the inputs, half of it if k4x4Down
  int64_t width;           // W of the inputs, half of it if k4x4Down
  int64_t depth;           // taps along the frames, odd
  int64_t frame_step;      // from one tap's frame to the next one's; negative: backwards
  int64_t dilation_h;      // between taps along H; 1 with 4 x 4 taps
  int64_t dilation_w;      // between taps along W; 1 with 4 x 4 taps
  const void* weight;      // its first tap, of the inputs' type
  const void* prepared;    // what winograd_prepare made of it; null: made here
  int64_t weight_out;      // from one output channel to the next, in elements
  int64_t weight_in;       // from one input channel to the next
  int64_t weight_step[3];  // from one tap to the next along F, H, W; negative: backwards
  int64_t out_channels;    // K
  int64_t
      second_channels;  // K2: outputs that follow them in the weight and have a tensor of their own
  const float* bias;    // (K), or null
  const void* residual;  // like out, or null; added after the ReLU
  bool relu;             // whether negative sums become 0
  void* out;             // (N, F, H', W', K), dense
  void* second_out;      // (N, F, H', W', K2), dense, without bias or residual; null if K2 is 0
};

// Whether this machine has the instructions for `dtype` and no faster ones that oneDNN uses, and
// the shape is worth it. Reads sizes alone, no pointers.
bool winograd_takes(const Winograd& w, torch::headeronly::ScalarType dtype);

// Bytes of the weight as the convolution reads it. They depend on the form, the channels and the
// depth, not on the size of the maps.
int64_t winograd_weight_bytes(const Winograd& w, torch::headeronly::ScalarType dtype);

// The weight as the convolution reads it, to `prepared`, on a boundary of 64 bytes.
void winograd_prepare(const Winograd& w, torch::headeronly::ScalarType dtype, void* prepared);

// The convolution. The result does not depend on the number of threads.
void winograd(const Winograd& w, torch::headeronly::ScalarType dtype);

// The gradient of the weight, bfloat16, where winograd_takes the shape: `grad` is that of the
// output, dense; w's weight strides are those of grad_weight. Bias, residual and ReLU are not
// looked at. The result does not depend on the number of threads.
void winograd_weight_gradient(const Winograd& w, const void* grad, void* grad_weight);

}  // namespace vinpaint::cpu
