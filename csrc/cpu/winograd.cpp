// SPDX-License-Identifier: Apache-2.0
#include "winograd.h"

#include "winograd_kernels.h"

namespace vinpaint::cpu {

using torch::headeronly::ScalarType;

namespace {

using Kernel = void (*)(const Winograd&);

// Null where oneDNN is to do it.
Kernel kernel_for(ScalarType dtype) {
#if defined(__x86_64__)
  static const bool has_bf16 =
      __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  // oneDNN's matrix tiles beat fewer multiplications on vectors.
  static const bool has_tiles = __builtin_cpu_supports("amx-bf16");
  if (dtype == ScalarType::BFloat16 && has_bf16 && !has_tiles) return winograd_avx512_bf16;
#endif
  return nullptr;
}

}  // namespace

bool winograd_takes(const Winograd& w, ScalarType dtype) {
  // Below this many channels the transforms cost more than the products they save.
  constexpr int64_t narrow = 32;
  return kernel_for(dtype) != nullptr && w.x_channels + w.skip_channels >= narrow &&
         w.out_channels >= narrow;
}

void winograd(const Winograd& w, ScalarType dtype) { kernel_for(dtype)(w); }

void winograd_weight_gradient([[maybe_unused]] const Winograd& w, [[maybe_unused]] const void* grad,
                              [[maybe_unused]] void* grad_weight) {
#if defined(__x86_64__)
  winograd_weight_gradient_avx512_bf16(w, grad, grad_weight);
#endif
}

}  // namespace vinpaint::cpu
