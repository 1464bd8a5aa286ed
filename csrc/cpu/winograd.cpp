// SPDX-License-Identifier: Apache-2.0
#include "winograd.h"

#include "winograd_kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace vinpaint::cpu {

using torch::headeronly::ScalarType;

namespace {

#if defined(__x86_64__)
// Whether oneDNN has AMX for bfloat16, which beats fewer multiplications on vectors.
bool has_tiles() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & (1u << 22)) != 0;
}
#endif

// Null where oneDNN is to do it.
const WinogradKernel* kernel_for(ScalarType dtype) {
#if defined(__x86_64__)
  static const bool has_float =
      __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  static const bool has_bf16 = has_float && __builtin_cpu_supports("avx512bf16") && !has_tiles();
  if (dtype == ScalarType::Float && has_float) return &winograd_avx512_float;
  if (dtype == ScalarType::BFloat16 && has_bf16) return &winograd_avx512_bf16;
#endif
  return nullptr;
}

}  // namespace

bool winograd_takes(const Winograd& w, ScalarType dtype) {
  // Below this many channels the transforms cost more than the products they save.
  constexpr int64_t narrow = 32;
  return kernel_for(dtype) != nullptr && w.x_channels + w.skip_channels >= narrow &&
         w.out_channels + w.second_channels >= narrow;
}

int64_t winograd_weight_bytes(const Winograd& w, ScalarType dtype) {
  return kernel_for(dtype)->weight_bytes(w);
}

void winograd_prepare(const Winograd& w, ScalarType dtype, void* prepared) {
  kernel_for(dtype)->prepare(w, prepared);
}

void winograd(const Winograd& w, ScalarType dtype) { kernel_for(dtype)->run(w); }

void winograd_weight_gradient([[maybe_unused]] const Winograd& w, [[maybe_unused]] const void* grad,
                              [[maybe_unused]] void* grad_weight) {
#if defined(__x86_64__)
  winograd_weight_gradient_avx512_bf16(w, grad, grad_weight);
#endif
}

}  // namespace vinpaint::cpu
