// SPDX-License-Identifier: Apache-2.0
// The passes over a channels-last tensor that surround a convolution on the CPU: rows x channels in
// memory, one row a pixel of a frame. No torch tensor here, only pointers.
//
// T is the stored type (float, BFloat16, Half, double); A the type of sums and coefficients (double
// for double, else float). Reductions run over chunks of a fixed number of rows, merged in order in
// double: the same input gives the same bits whatever the number of threads.
#pragma once

#include <cstdint>

#include "../rows.h"

namespace vinpaint::cpu {

// Mean and biased variance of each channel. Chunks hold a count, a mean and a sum of squared
// deviations, merged by Chan's formula, so a large common offset costs no digits.
template <class T, class A>
void statistics(const T* x, Rows n, A* mean, A* var);

// What batch norm multiplies and adds, one value a channel: (x - mean) * scale + shift.
template <class A>
struct Affine {
  const A* mean;
  const A* scale;  // gamma / sqrt(var + eps)
  const A* shift;  // beta
};

// out = relu((pre - mean) * scale + shift) + residual; residual may be null.
template <class T, class A>
void normalise_relu(const T* pre, const T* residual, Rows n, Affine<A> affine, T* out);

// Over g = grad_out where the ReLU was open: sum_g = sum g, sum_gx = sum g * (pre - mean).
template <class T, class A>
void normalise_relu_sums(const T* grad_out, const T* pre, Rows n, Affine<A> affine, A* sum_g,
                         A* sum_gx);

// grad_pre = scale * g - offset - slope * (pre - mean), with g as above.
template <class T, class A>
void normalise_relu_backward(const T* grad_out, const T* pre, Rows n, Affine<A> affine,
                             const A* offset, const A* slope, T* grad_pre);

// out = act(out + other + bias) + residual in place; other, bias and residual may be null.
template <class T, class A>
void finish(T* out, const T* other, const A* bias, const T* residual, bool relu, Rows n);

// grad = grad_out where out > 0 if `relu`, and its sum over the rows; grad and sum may be null.
template <class T, class A>
void relu_backward(const T* grad_out, const T* out, bool relu, Rows n, T* grad, A* sum);

// A weight (outer, inner, taps) inside a larger one, and how to lay it out channels last.
struct Weight {
  int64_t outer;  // first axis
  int64_t inner;  // second axis
  int64_t taps;   // kF * kH * kW, contiguous in the source
  int64_t step;   // between neighbours along outer in the source, in elements
};

// packed (outer, taps, inner), dense, from source (outer, inner, taps).
template <class T>
void pack_weight(const T* source, Weight n, T* packed);

}  // namespace vinpaint::cpu
