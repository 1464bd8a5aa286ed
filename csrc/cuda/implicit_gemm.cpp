// SPDX-License-Identifier: Apache-2.0
#include "implicit_gemm.h"

namespace vinpaint {

const char* launch_implicit_gemm(const ImplicitGemm& g, Storage storage, const void* x,
                                 const void* skip, const void* weight, const Epilogue& epilogue,
                                 void* out, void* stream) {
  const auto launch = storage == Storage::kHalf       ? implicit_gemm::launch_half
                      : storage == Storage::kBFloat16 ? implicit_gemm::launch_bfloat16
                                                      : implicit_gemm::launch_float;
  return launch(g, x, skip, weight, epilogue, out, stream);
}

}  // namespace vinpaint
