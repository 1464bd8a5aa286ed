// SPDX-License-Identifier: Apache-2.0
// What the convolution operators have in common on every device: their geometry, their argument
// checks, and torch's own convolution behind them.
//
// Padding is implied. A convolution has odd kernels k and pads d * (k - 1) / 2, so its output is
// ceil(in / stride); a transposed one pads (k - stride) / 2, so its output is in * stride. `skip`
// is read as if concatenated after x along the channels: the kernels take the two parts one after
// the other and no concatenation is stored.
#pragma once

#include "rows.h"
#include "tensor.h"

namespace vinpaint {

struct Convolution {
  Tensor x;                         // (N, Cx, F, H, W)
  OptionalTensor skip;              // (N, Cs, F, H, W)
  Tensor weight;                    // (Cout, Cx + Cs, kF, kH, kW); (Cx + Cs, Cout, ...) transposed
  std::array<int64_t, 3> kernel;    // kF, kH, kW
  std::array<int64_t, 3> stride;    // along F, H, W
  std::array<int64_t, 3> dilation;  // along F, H, W
  std::array<int64_t, 3> padding;   // along F, H, W, on both sides
  bool transposed;
  Ints out_sizes;  // (N, Cout, F', H', W')

  int64_t x_channels() const { return x.size(1); }
  int64_t skip_channels() const { return skip ? skip->size(1) : 0; }
  int64_t out_channels() const { return out_sizes[1]; }
  bool empty() const;             // the output has no elements
  Tensor weight_of_x() const;     // the part of weight that reads x
  Tensor weight_of_skip() const;  // the part of weight that reads skip
};

// A tensor of these sizes, channels last, as rows.
inline Rows rows_of(const Ints& sizes) {
  return {sizes[0] * sizes[2] * sizes[3] * sizes[4], sizes[1]};
}

// Checks everything that the operators share and works out the geometry. `op` leads each message.
Convolution check_convolution(const char* op, const Tensor& x, const OptionalTensor& skip,
                              const Tensor& weight, const Ints& stride, const Ints& dilation,
                              bool transposed);

// One value per output channel: gamma, beta, bias, mean, var.
void check_per_channel(const char* op, const char* name, const Tensor& t, const Convolution& c);

// What is added to a variance, and keeps its square root from 0.
void check_eps(const char* op, double eps);

// A tensor of the output's shape: residual, grad_out, pre, out.
void check_like_output(const char* op, const char* name, const Tensor& t, const Convolution& c);

// A convolution as oneDNN or torch is given it: over frames of a batch where the kernel has no
// depth.
struct Lowered {
  Ints stride, padding, dilation;  // 2 or 3 values
  bool flat;                       // frames are part of the batch
};

Lowered lower(const Convolution& c);

// (N, C, F, H, W) channels last as (N * F, C, H, W) channels last; the same memory.
Tensor flatten_frames(const Tensor& t);

// An input or output of the convolution, channels last, flat if lowered so.
Tensor input_of(const Tensor& t, const Lowered& l);

// What came back from torch, flat or not, as a channels-last tensor of these sizes.
Tensor output_of(const Tensor& t, const Ints& sizes);

// A weight as torch is given it beside such inputs.
Tensor weight_for(const Tensor& weight, const Lowered& l);

// Torch's convolution_backward for one input and its part of the weight: gradients of input, weight
// and bias, those that are wanted.
std::tuple<Tensor, Tensor, Tensor> library_backward(const Convolution& c, const Tensor& grad,
                                                    const Tensor& input, const Tensor& weight,
                                                    const std::array<bool, 3>& wanted);

// All channels last.
struct ConvolutionGradients {
  Tensor x, skip, weight;  // without elements where absent or not needed
};

// Zeros: those of a convolution whose output is empty.
ConvolutionGradients empty_gradients(const Convolution& c, bool need_input);

// Gradients of the convolution alone, by torch's convolution_backward, once per input.
ConvolutionGradients convolution_backward(const Convolution& c, const Tensor& grad,
                                          bool need_input);

}  // namespace vinpaint
