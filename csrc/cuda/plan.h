// SPDX-License-Identifier: Apache-2.0
// Which algorithm computes a product of convolution on which GPU. The choice is measured, not
// guessed: tuning_table.inc is written by `python -m vinpaint.tuning` on the GPU in question.
#pragma once

#include <cstdint>

#include "../implicit_gemm.h"
#include "../storage.h"

namespace vinpaint {

enum class Algorithm {
  kPortable,  // mma.sync, any GPU from compute capability 8.0 on
  kHopper,    // WGMMA and TMA, compute capability 9.0
  kLibrary,   // torch's convolution, that is cuDNN; what surrounds it is ours all the same
};

// Of a GPU, 10 * major + minor. In the emulator, that of a GPU with everything the emulator can do.
int compute_capability(int device);

// What the table is asked: a product as implicit_gemm.h describes it, by its shape.
Algorithm choose_algorithm(const ImplicitGemm& g, Storage storage, int capability);

// Makes choose_algorithm say this (an Algorithm), or what the table says (-1), in this process. For
// measuring the table, and for tests.
void force_algorithm(int algorithm);

}  // namespace vinpaint
