// SPDX-License-Identifier: Apache-2.0
// What host and kernel of the implicit GEMM by mma.sync agree on, and the launcher of each stored
// type, one a compiled file.
#pragma once

#include "../implicit_gemm.h"

namespace vinpaint::implicit_gemm {

constexpr int kRowBytes = 64;    // of a tile row: one step along the sum
constexpr int kChunkBytes = 16;  // what one asynchronous copy moves

// Whether the inputs have to be read value by value: their channels do not fill chunks.
constexpr bool is_narrow(const ImplicitGemm& g, int value_bytes) {
  const int chunk = kChunkBytes / value_bytes;
  return g.x_channels % chunk != 0 || g.skip_channels % chunk != 0 || g.weight_row % chunk != 0 ||
         g.weight_tap % chunk != 0;
}

constexpr int kHaloStages = 3;         // of the weight's tiles, with a halo
constexpr int kMostHaloTaps = 128;     // of a kernel that is worked on so
constexpr int kHaloFixedBytes = 1280;  // tables of the taps, and the block's place

// Output channels of a block. Exact products need so many registers that 32 are the most.
constexpr int columns_of(int out_channels, bool exact) {
  if (exact) return out_channels > 16 ? 32 : 16;
  return out_channels > 64 ? 128 : out_channels > 32 ? 64 : out_channels > 16 ? 32 : 16;
}

// Shared memory of a block with a halo: tiles of the weight, two halos, and a table of its pixels.
constexpr int halo_bytes(int columns, int pixels) {
  return kHaloFixedBytes + kHaloStages * columns * kRowBytes +
         pixels * (2 * kRowBytes + static_cast<int>(sizeof(int)));
}

// The largest halo for this product on a GPU whose multiprocessors have so much shared memory; 0 if
// it has to read its patches once a tap.
int most_halo_pixels(const ImplicitGemm& g, Storage storage, int shared_memory);

using Launcher = const char*(const ImplicitGemm& g, const void* x, const void* skip,
                             const void* weight, const Epilogue& epilogue, void* out, void* stream);

Launcher launch_bfloat16, launch_half, launch_float;

}  // namespace vinpaint::implicit_gemm
