// SPDX-License-Identifier: Apache-2.0
#include "implicit_gemm_kernel.h"

namespace vinpaint::implicit_gemm {

const char* launch_half(const ImplicitGemm& g, const void* x, const void* skip, const void* weight,
                        const Epilogue& epilogue, void* out, void* stream) {
  return launch_type<Half, false>(g, x, skip, weight, epilogue, out, stream);
}

}  // namespace vinpaint::implicit_gemm
