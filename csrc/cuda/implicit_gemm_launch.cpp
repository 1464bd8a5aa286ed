// SPDX-License-Identifier: Apache-2.0
#include "implicit_gemm_launch.h"

#include <algorithm>

namespace vinpaint {

namespace implicit_gemm {

int most_halo_pixels(const ImplicitGemm& g, Storage storage, int shared_memory) {
  const bool exact = storage == Storage::kFloat && g.exact;
  const int taps = g.axes[0].kernel * g.axes[1].kernel * g.axes[2].kernel;
  if (is_narrow(g, storage == Storage::kFloat ? 4 : 2) || taps > kMostHaloTaps) return 0;
  // Two blocks have to fit, lest copies and products alternate; CUDA keeps a kilobyte of each.
  const int room = shared_memory / 2 - 1024 - halo_bytes(columns_of(g.out_channels, exact), 0);
  return std::max(room / (halo_bytes(0, 1) - halo_bytes(0, 0)), 0);
}

}  // namespace implicit_gemm

const char* launch_implicit_gemm(const ImplicitGemm& g, Storage storage, const void* x,
                                 const void* skip, const void* weight, const Epilogue& epilogue,
                                 void* out, void* stream) {
  const auto launch = storage == Storage::kHalf       ? implicit_gemm::launch_half
                      : storage == Storage::kBFloat16 ? implicit_gemm::launch_bfloat16
                                                      : implicit_gemm::launch_float;
  return launch(g, x, skip, weight, epilogue, out, stream);
}

}  // namespace vinpaint
