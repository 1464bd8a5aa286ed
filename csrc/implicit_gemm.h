// SPDX-License-Identifier: Apache-2.0
// A convolution as a matrix product: its geometry, and the CUDA launchers.
//
// Rows are positions (n, f, h, w) of the output, columns its channels, and the sum runs over the
// taps of the kernel and the input channels, first those of x, then those of skip. All tensors are
// channels last. Forward and input gradient, strided and transposed, are this one product with
// other numbers: with stride 2 a transposed convolution (and the input gradient of a strided one)
// falls into phases, one for each remainder of the output coordinate, each of which is a small
// convolution of its own.
#pragma once

#include <cstdint>

#include "storage.h"

namespace vinpaint {

// The taps that reach one phase of the output along one axis. Tap j reads the input at
// in_step * p + first + j * step (if that is inside) for position p, through the weight's tap
// kernel_first + j * kernel_step.
struct AxisTaps {
  int count;         // may be 0
  int first;         // offset of tap 0, in input pixels
  int step;          // from one tap to the next, in input pixels; may be negative
  int kernel_first;  // the weight's tap that is tap 0
  int kernel_step;   // from one tap to the next in the weight
};

constexpr int kMostPhases = 2;  // along one axis

// Frames, rows or columns.
struct Axis {
  int in;                      // input size
  int out;                     // output size
  int kernel;                  // weight size
  int in_step;                 // input pixels between neighbouring positions: the stride, or 1
  int phases;                  // output pixels between neighbouring positions: 1, or the stride
  AxisTaps taps[kMostPhases];  // of output coordinates p * phases + phase

  constexpr int positions() const { return (out + phases - 1) / phases; }
};

// A convolution with stride, dilation and zeros around: out[o] = sum_k w[k] in[stride o - padding +
// dilation k].
Axis convolution_axis(int in, int out, int kernel, int stride, int dilation, int padding);

// Its adjoint, which takes `in` values to `out`: out[stride i - padding + dilation k] += w[k]
// in[i]. A transposed convolution, or the input gradient of a convolution.
Axis transposed_axis(int in, int out, int kernel, int stride, int dilation, int padding);

struct ImplicitGemm {
  int batch;           // N
  Axis axes[3];        // F, H, W
  int x_channels;      // of the first input
  int skip_channels;   // of the second, 0 without it
  int out_channels;    // columns
  int64_t weight_row;  // elements from one output channel to the next in the weight
  int64_t weight_tap;  // elements from one tap to the next; input channels are neighbours
  int patch_log2[3];   // the positions one block owns: 2^n along F, H, W; their sum is 7
  // Pixels of a patch and of what its taps reach around it, at most, if a block is to read these
  // once; 0 if it is to read its patch once a tap.
  int halo_pixels;
  bool relu;   // apply ReLU after the bias
  bool exact;  // float only: three products of TF32 parts instead of one

  constexpr int phases() const { return axes[0].phases * axes[1].phases * axes[2].phases; }
  constexpr int64_t patches(int axis) const {
    return (axes[axis].positions() + (int64_t{1} << patch_log2[axis]) - 1) >> patch_log2[axis];
  }
  // Blocks along the rows; each leaves one partial sum of the statistics.
  constexpr int64_t row_blocks() const {
    return batch * patches(0) * patches(1) * patches(2) * phases();
  }
};

constexpr int kPatchLog2 = 7;  // 128 positions a block

// Chooses patch_log2 and halo_pixels: what costs least in (block, tap) pairs, since a tap that
// falls outside the input for a whole block is not computed, and in input pixels read. A halo may
// have up to `most_halo_pixels`; with 0 there is none.
void choose_patch(ImplicitGemm* g, int most_halo_pixels);

#ifdef VINPAINT_WITH_CUDA

// What becomes of the sums. All may be null.
struct Epilogue {
  const float* bias;     // one value an output channel
  const void* residual;  // like out; added after the ReLU
  // Statistics of the stored output over a block's positions: count (row_blocks), then mean
  // (row_blocks, out_channels) and the sum of squared deviations from it (row_blocks,
  // out_channels).
  float* counts;
  float* means;
  float* deviations;
};

// Pointers are device pointers to 16-byte aligned tensors of the stored type; weight is
// (out_channels, taps, x_channels + skip_channels) by the strides above. `stream` is a
// cudaStream_t. Returns null, or what CUDA has to say against the launch.
const char* launch_implicit_gemm(const ImplicitGemm& g, Storage storage, const void* x,
                                 const void* skip, const void* weight, const Epilogue& epilogue,
                                 void* out, void* stream);

#endif  // VINPAINT_WITH_CUDA

}  // namespace vinpaint
