// SPDX-License-Identifier: Apache-2.0
// What the kernels' own geometry makes of one layer, for predict.py: a plain C function over
// csrc/implicit_gemm.h, compiled with csrc/implicit_gemm.cpp and loaded by ctypes.
#include <algorithm>

#include "../csrc/implicit_gemm.h"

namespace {

// (patch, tap) pairs along one axis that touch the input, over all phases.
int64_t live_pairs(const vinpaint::Axis& a, int log2) {
  int64_t live = 0;
  for (int phase = 0; phase < a.phases; ++phase)
    for (int first = 0; first < a.positions(); first += 1 << log2) {
      const int last = std::min(first + (1 << log2), a.positions()) - 1;
      for (int j = 0; j < a.taps[phase].count; ++j) {
        const int offset = a.taps[phase].first + j * a.taps[phase].step;
        live += a.in_step * last + offset >= 0 && a.in_step * first + offset < a.in;
      }
    }
  return live;
}

}  // namespace

// Along F, H, W. Returns the blocks along the rows; `live` is the (block, tap) pairs that are
// computed, `patch` the positions that a block owns, `halo` the input pixels that it reads once, or
// 0 if it reads its patch once a tap.
extern "C" int64_t vinpaint_geometry(int batch, const int* in, const int* out, const int* kernel,
                                     const int* stride, const int* dilation, const int* padding,
                                     bool transposed, int out_channels, int most_halo,
                                     int64_t* live, int* patch, int* halo) {
  vinpaint::ImplicitGemm g{};
  g.batch = batch;
  for (int i = 0; i < 3; ++i) {
    const auto make = transposed ? vinpaint::transposed_axis : vinpaint::convolution_axis;
    g.axes[i] = make(in[i], out[i], kernel[i], stride[i], dilation[i], padding[i]);
  }
  g.out_channels = out_channels;
  vinpaint::choose_patch(&g, most_halo);
  *halo = g.halo_pixels;
  *live = batch;
  for (int i = 0; i < 3; ++i) {
    *live *= live_pairs(g.axes[i], g.patch_log2[i]);
    patch[i] = 1 << g.patch_log2[i];
  }
  return g.row_blocks();
}
