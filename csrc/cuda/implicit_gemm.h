// SPDX-License-Identifier: Apache-2.0
// The implicit-GEMM launcher of each stored type, one a compiled file.
#pragma once

#include "../implicit_gemm.h"

namespace vinpaint::implicit_gemm {

using Launcher = const char*(const ImplicitGemm& g, const void* x, const void* skip,
                             const void* weight, const Epilogue& epilogue, void* out, void* stream);

Launcher launch_bfloat16, launch_half, launch_float;

}  // namespace vinpaint::implicit_gemm
