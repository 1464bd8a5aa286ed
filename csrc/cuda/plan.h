// SPDX-License-Identifier: Apache-2.0
// Which algorithm computes a product of convolution on which GPU. The choice is measured, not
// guessed: `make gpu-tune` runs the networks on the GPU in question while every product is timed
// with every algorithm, and writes what was fastest to tuning_table.inc.
#pragma once

#include <string>
#include <vector>

#include "../implicit_gemm.h"
#include "../storage.h"
#include "../weight_gradient.h"

namespace vinpaint {

enum class Algorithm {
  kPortable,  // our kernels by mma.sync, any GPU from compute capability 8.0 on
  kHopper,    // our kernel by WGMMA and TMA, compute capability 9.0
  kLibrary,   // torch's convolution, that is cuDNN's; what surrounds it is ours all the same
};

// What the choice depends on. Of a weight gradient, `x_channels` are its rows and `out_channels`
// its columns.
struct Product {
  int capability;  // of the GPU, 10 * major + minor
  Storage storage;
  bool exact;  // float only: without rounding to TF32
  bool weight_gradient;
  int kernel[3];    // F, H, W
  int in_step[3];   // as in Axis
  int phases[3];    // as in Axis
  int dilation[3];  // input pixels between taps, without sign
  int x_channels;
  int skip_channels;
  int out_channels;
  int positions_log2;  // of the number of positions, rounded down
};

Product product_of(const ImplicitGemm& g, Storage storage, int capability);
Product product_of(const WeightGradient& g, Storage storage, int capability);

// What was measured in this process, else what the table says of the product that is like this one
// but for its size, the nearest in size; else kPortable.
Algorithm choose_algorithm(const Product& product);

// Has every product of this process computed so, where the algorithm can: "portable", "hopper" or
// "library"; "" goes back to the table. For tests. Returns whether there is such an algorithm.
bool force_algorithm(const std::string& name);

// Whether a product that was not measured yet should be, when it comes along.
void measure_products(bool on);
bool is_to_be_measured(const Product& product);
void keep_measured(const Product& product, Algorithm fastest);

// A line of the table for every product that was measured in this process.
std::vector<std::string> measured_lines();

}  // namespace vinpaint
