// SPDX-License-Identifier: Apache-2.0
// Minimal filtering, one function an instruction set. Only where the machine has it.
#pragma once

#include "winograd.h"

namespace vinpaint::cpu {

void winograd_avx512_float(const Winograd& w);
void winograd_avx512_bf16(const Winograd& w);
void winograd_weight_gradient_avx512_bf16(const Winograd& w, const void* grad, void* grad_weight);

}  // namespace vinpaint::cpu
