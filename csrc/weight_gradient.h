// SPDX-License-Identifier: Apache-2.0
// The gradient of a convolution's weight as a matrix product: its geometry, and the CUDA launcher.
//
//   dW[r][tap][c] = sum over batch n and positions p of
//                   rows[n, p, r] * gathered[n, in_step p + first + step tap, c],
//
// zeros outside `gathered`. Of a convolution, `rows` is the output's gradient and `gathered` the
// input; of a transposed convolution, `rows` is the input and `gathered` the output's gradient.
// With a skip the product is taken twice, into another range of columns or rows. All tensors are
// channels last.
#pragma once

#include <cstdint>

#include "storage.h"

namespace vinpaint {

struct Interval {
  int begin, end;  // the first, and one behind the last; empty if end <= begin
};

// Frames, rows or columns of pixels.
struct WeightGradientAxis {
  int positions;  // size of `rows`
  int gathered;   // size of `gathered`
  int kernel;     // taps
  int in_step;    // gathered pixels between neighbouring positions: the stride
  int first;      // offset of tap 0 from its position, in gathered pixels: minus the padding
  int step;       // from one tap to the next, in gathered pixels: the dilation; may be negative

  // The positions at which a tap reads inside `gathered`.
  constexpr Interval live(int tap) const {
    const int offset = first + tap * step, room = gathered - 1 - offset;
    const int begin = offset < 0 ? (in_step - 1 - offset) / in_step : 0;
    const int end = room < 0 ? 0 : room / in_step + 1;
    return {begin, end < positions ? end : positions};
  }
};

// A block works out so many columns of the product ...
constexpr int kWeightGradientColumns = 128;

struct WeightGradient {
  int batch;                   // N
  WeightGradientAxis axes[3];  // F, H, W
  int row_channels;            // channels of `rows`
  int col_channels;            // channels of `gathered`
  int64_t out_row;             // elements from one row channel to the next in dW
  int64_t out_tap;             // elements from one tap to the next in dW
  int64_t out_col;             // elements from one gathered channel to the next in dW
  bool exact;                  // float only: three products of TF32 parts instead of one

  // What plan_weight_gradient decides.
  bool exchanged;  // the two tensors have changed places, and these numbers with them
  int splits;      // parts of the sum that are worked on at once, and then added up in order

  constexpr int taps() const { return axes[0].kernel * axes[1].kernel * axes[2].kernel; }
  // Columns of the product: the channels of tap 0, then those of tap 1, ...
  constexpr int64_t columns() const { return int64_t{taps()} * col_channels; }
  constexpr int64_t positions() const {
    return int64_t{axes[0].positions} * axes[1].positions * axes[2].positions;
  }
  // ... and so many of its rows.
  constexpr int block_rows() const {
    return row_channels > 64 && !exact ? 128 : row_channels > 32 || exact ? 64 : 32;
  }
  constexpr int64_t row_blocks() const { return (row_channels + block_rows() - 1) / block_rows(); }
  constexpr int64_t column_blocks() const {
    return (columns() + kWeightGradientColumns - 1) / kWeightGradientColumns;
  }
  // Floats of workspace that the launch needs; the workspace may be null if that is 0.
  constexpr int64_t workspace() const { return splits > 1 ? splits * row_channels * columns() : 0; }
};

// The most floats a plan asks for, unless told otherwise: 64 MB.
constexpr int64_t kMostWorkspace = int64_t{1} << 24;

// Decides how the product is worked out on a GPU of so many multiprocessors. Call it once.
void plan_weight_gradient(WeightGradient* g, int multiprocessors = 132,
                          int64_t most_workspace = kMostWorkspace);

#ifdef VINPAINT_WITH_CUDA

// Pointers are device pointers to tensors of the stored type, `rows` and `gathered` as the plan was
// asked about them; they are read fastest if aligned to 16 bytes. Writes dW; the same input gives
// the same bits. `stream` is a cudaStream_t. Returns null, or what is to be said against the
// launch.
const char* launch_weight_gradient(const WeightGradient& g, Storage storage, const void* rows,
                                   const void* gathered, float* workspace, void* out, void* stream);

#endif  // VINPAINT_WITH_CUDA

}  // namespace vinpaint
