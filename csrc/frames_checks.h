// SPDX-License-Identifier: Apache-2.0
// Argument checks of the frame operators, shared by the devices.
#pragma once

#include "frames.h"
#include "tensor.h"

namespace vinpaint {

inline int peak_of(const Tensor& frames) {
  return frames.scalar_type() == ScalarType::UInt16 ? kShortPeak : kBytePeak;
}

inline void check_frames_and_mask(const char* op, const Tensor& frames, const Tensor& mask) {
  const ScalarType dtype = frames.scalar_type(), mask_dtype = mask.scalar_type();
  STD_TORCH_CHECK(dtype == ScalarType::Byte || dtype == ScalarType::UInt16, op,
                  ": frames must be uint8 or uint16, got ", torch::headeronly::toString(dtype));
  STD_TORCH_CHECK(frames.dim() == 5 && frames.size(4) == 3, op,
                  ": frames must have the shape (N, F, H, W, 3), got ",
                  to_string(sizes_of(frames)));
  STD_TORCH_CHECK(mask_dtype == ScalarType::Byte || mask_dtype == ScalarType::Bool, op,
                  ": mask must be uint8 or bool, got ", torch::headeronly::toString(mask_dtype));
  Ints mask_sizes = sizes_of(frames);
  mask_sizes.pop_back();
  STD_TORCH_CHECK(sizes_of(mask) == mask_sizes, op, ": mask must have the shape ",
                  to_string(mask_sizes), ", got ", to_string(sizes_of(mask)));
  STD_TORCH_CHECK(mask.device() == frames.device(), op, ": mask must be on the device of frames");
}

// `double_too`: whether this device takes float64.
inline Frames check_prepare_frames(const Tensor& frames, const Tensor& mask, const Tensor& mean,
                                   ScalarType dtype, int64_t grid, bool double_too) {
  constexpr const char* op = "prepare_frames";
  check_frames_and_mask(op, frames, mask);
  STD_TORCH_CHECK(frames.size(2) > 0 && frames.size(3) > 0, op,
                  ": frames must have at least one pixel, got ", to_string(sizes_of(frames)));
  STD_TORCH_CHECK(mean.numel() == 3, op, ": mean must have 3 values, got ", mean.numel());
  STD_TORCH_CHECK(mean.device() == frames.device(), op, ": mean must be on the device of frames");
  STD_TORCH_CHECK(is_supported(dtype) && (double_too || dtype != ScalarType::Double), op,
                  ": dtype must be float32, bfloat16 or float16", double_too ? " or float64" : "",
                  ", got ", torch::headeronly::toString(dtype));
  STD_TORCH_CHECK(grid >= 2 && grid % 2 == 0, op, ": grid must be even and positive, got ", grid);
  const auto padded = [grid](int64_t size) { return (size + grid - 1) / grid * grid; };
  return {frames.size(0) * frames.size(1), frames.size(2), frames.size(3), padded(frames.size(2)),
          padded(frames.size(3))};
}

inline Frames check_composite_frames(const Tensor& completed, const Tensor& frames,
                                     const Tensor& mask, bool double_too) {
  constexpr const char* op = "composite_frames";
  const ScalarType dtype = completed.scalar_type();
  check_frames_and_mask(op, frames, mask);
  STD_TORCH_CHECK(is_supported(dtype) && (double_too || dtype != ScalarType::Double), op,
                  ": completed must be float32, bfloat16 or float16",
                  double_too ? " or float64" : "", ", got ", torch::headeronly::toString(dtype));
  STD_TORCH_CHECK(completed.device() == frames.device(), op,
                  ": completed must be on the device of frames");
  const Ints s = sizes_of(frames), c = sizes_of(completed);
  STD_TORCH_CHECK(
      c.size() == 5 && c[0] == s[0] && c[1] == 3 && c[2] == s[1] && c[3] >= s[2] && c[4] >= s[3],
      op, ": completed must have the shape (N, 3, F, H, W) or larger in H and W, ",
      to_string({s[0], 3, s[1], s[2], s[3]}), ", got ", to_string(c));
  return {s[0] * s[1], s[2], s[3], c[3], c[4]};
}

// The shapes of the network's input, and of the reduced one.
struct NetworkInputs {
  Ints full, reduced;
};

inline NetworkInputs network_inputs(const Tensor& frames, const Frames& p) {
  const int64_t n = frames.size(0), f = frames.size(1);
  return {{n, 4, f, p.padded_height, p.padded_width},
          {n, 4, f, p.padded_height / 2, p.padded_width / 2}};
}

}  // namespace vinpaint
