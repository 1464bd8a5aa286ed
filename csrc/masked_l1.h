// SPDX-License-Identifier: Apache-2.0
// Mean absolute difference inside the hole: sizes, and the CUDA launchers.
//
// A group is a clip, or a frame if `per_frame`. loss = mean over all groups of
//   sum of mask * |pred - target| / (channels * sum of mask),  0 for a group without a hole.
// scale, one value a frame, is 1 / (groups * channels * sum of mask over the frame's group) or 0,
// so that grad_pred = grad * scale * mask * sign(pred - target).
#pragma once

#include <cstdint>

#include "storage.h"

namespace vinpaint {

// Where an element of a (N, C, F, H, W) tensor lies; all in elements.
struct Strides5 {
  int64_t n, c, f, h, w;
};

struct MaskedL1 {
  int64_t clips;     // N
  int64_t channels;  // C of pred and target; mask has 1
  int64_t frames;    // F
  int64_t height;    // H
  int64_t width;     // W
  bool per_frame;    // a group is a frame, not a clip
  Strides5 pred;     // strides of pred
  Strides5 target;   // strides of target
  Strides5 mask;     // strides of mask; c is not used
  Strides5 grad;     // strides of grad_pred; backward only

  constexpr int64_t all_frames() const { return clips * frames; }
  constexpr int64_t groups() const { return per_frame ? all_frames() : clips; }
  constexpr int64_t frames_per_group() const { return per_frame ? 1 : frames; }
  constexpr int64_t pixels() const { return height * width; }
};

#ifdef VINPAINT_WITH_CUDA

// Pixels whose sum one block takes. Fixed, so that the order of every sum is.
constexpr int64_t kMaskedL1ChunkPixels = 2048;

constexpr int64_t masked_l1_chunks(const MaskedL1& p) {
  return (p.pixels() + kMaskedL1ChunkPixels - 1) / kMaskedL1ChunkPixels;
}

// Doubles of workspace: one that holds a counter, a sum of differences and one of the mask for each
// chunk, then for each frame, then a loss for each group.
constexpr int64_t masked_l1_workspace(const MaskedL1& p) {
  return 1 + 2 * p.all_frames() * (masked_l1_chunks(p) + 1) + p.groups();
}

// How a mask is stored: as bytes (or bools), in the type of pred, or as floats.
enum class MaskStorage { kByte, kLikePred, kFloat };

// All pointers are device pointers; loss (1) and scale (N, F) are float. `stream` is a
// cudaStream_t. Returns null, or what CUDA has to say against the launch.
const char* launch_masked_l1(const MaskedL1& p, Storage storage, const void* pred,
                             const void* target, MaskStorage mask_storage, const void* mask,
                             double* workspace, float* loss, float* scale, void* stream);

// grad is the incoming gradient, one float on the device.
const char* launch_masked_l1_backward(const MaskedL1& p, Storage storage, const float* grad,
                                      const void* pred, const void* target,
                                      MaskStorage mask_storage, const void* mask,
                                      const float* scale, void* grad_pred, void* stream);

#endif  // VINPAINT_WITH_CUDA

}  // namespace vinpaint
