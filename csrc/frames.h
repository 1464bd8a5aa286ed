// SPDX-License-Identifier: Apache-2.0
// From the frames of a video to the networks' input and back: sizes, and the CUDA launchers.
//
// The network input has four channels: red, green and blue in [0, 1] with the mean in place of the
// hole, and the mask. It is larger than the frames by copies of their last row and column. The
// reduced input has half the height and width: a pixel is the average of four, hole or not, and it
// is hole, that is the mean, if any of the four is.
#pragma once

#include <cstdint>

#include "storage.h"

namespace vinpaint {

struct Frames {
  int64_t count;          // N * F
  int64_t height;         // of the frames and of their mask
  int64_t width;          // of the frames and of their mask
  int64_t padded_height;  // of the network's input and output
  int64_t padded_width;   // of the network's input and output

  constexpr int64_t pixels() const { return count * height * width; }
};

// A frame's values are integers from 0 to this.
constexpr int kBytePeak = 255, kShortPeak = 65535;

#ifdef VINPAINT_WITH_CUDA

// All pointers are device pointers to dense tensors: frames (count, height, width, 3) of uint8 or,
// if peak is kShortPeak, uint16; mask (count, height, width) of bytes, nonzero in the hole.
// `stream` is a cudaStream_t. Returns null, or what CUDA has to say against the launch.

// mean is one float a colour; full (count, padded_height, padded_width, 4) and reduced (the same of
// half the height and width) are of the stored type. Either may be null.
const char* launch_prepare_frames(const Frames& p, int peak, const void* frames,
                                  const uint8_t* mask, const float* mean, Storage storage,
                                  void* full, void* reduced, void* stream);

// out = frames with the hole from completed (count, padded_height, padded_width, 3), of the stored
// type; `invalid` becomes the number of values in the hole that are NaN.
const char* launch_composite_frames(const Frames& p, int peak, Storage storage,
                                    const void* completed, const void* frames, const uint8_t* mask,
                                    void* out, unsigned* invalid, void* stream);

#endif  // VINPAINT_WITH_CUDA

}  // namespace vinpaint
