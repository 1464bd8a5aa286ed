// SPDX-License-Identifier: Apache-2.0
// The passes over a channels-last tensor that surround a convolution on a GPU: their sizes, and the
// CUDA launchers. cpu/passes.h has the same passes for the CPU.
//
// A tensor is rows x channels in memory, one row a pixel of a frame. Every sum runs over blocks of
// rows whose number depends on the sizes alone, and blocks are merged in a fixed order: the same
// input gives the same bits on every run and every GPU.
#pragma once

#include <cstdint>

#include "rows.h"
#include "storage.h"

namespace vinpaint {

#ifdef VINPAINT_WITH_CUDA

// Rows whose sums one block takes: enough to be worth a block, and so many that the blocks can be
// merged at once.
constexpr int64_t rows_per_block(Rows n) {
  constexpr int64_t least = 64, most_blocks = 1024;
  const int64_t wanted = (n.rows + most_blocks - 1) / most_blocks;
  return wanted < least ? least : wanted;
}

constexpr int64_t row_blocks(Rows n) {
  return (n.rows + rows_per_block(n) - 1) / rows_per_block(n);
}

// Below, tensors are device pointers of the stored type, all else is float; per-channel values are
// (channels). Accesses are of 16 bytes where alignment and channels allow it. `stream` is a
// cudaStream_t. A launcher returns null, or what CUDA has to say against the launch. There must be
// at least one row and one channel.

// Statistics of blocks of rows, as the epilogue of a convolution leaves them.
struct PartialStatistics {
  int64_t blocks;     // row_blocks(n) where launch_statistics writes them
  float* counts;      // rows of each block (blocks); may be 0
  float* means;       // (blocks, channels); not looked at where the count is 0
  float* deviations;  // sums of squared deviations from the block's mean (blocks, channels); so too
};

// The statistics of x in row_blocks(n) blocks.
const char* launch_statistics(Rows n, Storage storage, const void* x, PartialStatistics out,
                              void* stream);

// Floats of workspace for launch_merge_statistics; may be 0.
int64_t merge_statistics_workspace(int64_t blocks, int64_t channels);

// Mean and biased variance over all blocks. workspace may be null if none is needed.
const char* launch_merge_statistics(const PartialStatistics& partial, int64_t channels,
                                    float* workspace, float* mean, float* var, void* stream);

// Batch norm with the statistics given: (x - mean) * scale + beta, scale = gamma / sqrt(var + eps).
struct BatchNorm {
  const float* gamma;
  const float* beta;
  const float* mean;
  const float* var;  // biased
  float eps;         // added to var
};

// out = relu(batch norm of pre) + residual; residual may be null, and may be out.
const char* launch_normalise_relu(Rows n, Storage storage, const void* pre, const BatchNorm& norm,
                                  const void* residual, void* out, void* stream);

// What the sums of the backward become. With g = grad_out where the ReLU was open:
struct BatchNormGradients {
  float* gamma;   // sum of g * (pre - mean) / sqrt(var + eps)
  float* beta;    // sum of g
  float* offset;  // scale / rows * beta's gradient
  float* slope;   // scale / rows * gamma's gradient / sqrt(var + eps)
};

// Floats of workspace for launch_normalise_relu_sums.
constexpr int64_t normalise_relu_sums_workspace(Rows n) { return 2 * row_blocks(n) * n.channels; }

const char* launch_normalise_relu_sums(Rows n, Storage storage, const void* grad_out,
                                       const void* pre, const BatchNorm& norm, float* workspace,
                                       const BatchNormGradients& out, void* stream);

// grad_pre = scale * g - offset - slope * (pre - mean), with `sums` from
// launch_normalise_relu_sums; grad_pre may be grad_out or pre.
const char* launch_normalise_relu_backward(Rows n, Storage storage, const void* grad_out,
                                           const void* pre, const BatchNorm& norm,
                                           const BatchNormGradients& sums, void* grad_pre,
                                           void* stream);

// Floats of workspace for launch_relu_backward where it sums.
constexpr int64_t relu_backward_workspace(Rows n) { return row_blocks(n) * n.channels; }

// grad = grad_out where out > 0 if `relu`, else grad_out, and its sum over the rows. grad, or sum
// and workspace, may be null; out may be null without relu; grad may be grad_out.
const char* launch_relu_backward(Rows n, Storage storage, const void* grad_out, const void* out,
                                 bool relu, float* workspace, void* grad, float* sum, void* stream);

// out = act(out + other + bias) + residual in place; act is ReLU if `relu`. other, bias and
// residual may be null.
const char* launch_finish(Rows n, Storage storage, void* out, const void* other, const float* bias,
                          const void* residual, bool relu, void* stream);

#endif  // VINPAINT_WITH_CUDA

}  // namespace vinpaint
