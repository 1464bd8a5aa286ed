// SPDX-License-Identifier: Apache-2.0
// Minimal filtering, one function an instruction set. Only where the machine has it.
#pragma once

#include "winograd.h"

namespace vinpaint::cpu {

struct WinogradKernel {
  int64_t (*weight_bytes)(const Winograd& w);
  void (*prepare)(const Winograd& w, void* prepared);
  void (*run)(const Winograd& w);
};

extern const WinogradKernel winograd_avx512_float, winograd_avx512_bf16;
void winograd_weight_gradient_avx512_bf16(const Winograd& w, const void* grad, void* grad_weight);

}  // namespace vinpaint::cpu
