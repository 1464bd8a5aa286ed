// SPDX-License-Identifier: Apache-2.0
// Convolution as a matrix product on the tensor cores of compute capability 9.0: the wide layers in
// half and bfloat16, for which it takes the place of launch_implicit_gemm.
#pragma once

#include "implicit_gemm.h"

namespace vinpaint {

#ifdef VINPAINT_WITH_HOPPER

// Whether launch_implicit_gemm_hopper computes this product, on a device of capability 9.0:
// channels in multiples of 64, the weight's strides in multiples of 8.
bool hopper_takes(const ImplicitGemm& g, Storage storage);

// As launch_implicit_gemm, for what hopper_takes.
const char* launch_implicit_gemm_hopper(const ImplicitGemm& g, Storage storage, const void* x,
                                        const void* skip, const void* weight,
                                        const Epilogue& epilogue, void* out, void* stream);

#elif defined(VINPAINT_WITH_CUDA)

// Compiled without code for compute capability 9.0.
inline bool hopper_takes(const ImplicitGemm&, Storage) { return false; }

inline const char* launch_implicit_gemm_hopper(const ImplicitGemm&, Storage, const void*,
                                               const void*, const void*, const Epilogue&, void*,
                                               void*) {
  return "this build has no code for compute capability 9.0";
}

#endif

}  // namespace vinpaint
