// SPDX-License-Identifier: Apache-2.0
// Argument checks of masked_l1, shared by the devices.
#pragma once

#include "masked_l1.h"
#include "tensor.h"

namespace vinpaint {

inline Strides5 strides_of(const Tensor& t) {
  return {t.stride(0), t.stride(1), t.stride(2), t.stride(3), t.stride(4)};
}

// `double_too`: whether this device takes float64.
inline MaskedL1 check_masked_l1(const char* op, const Tensor& pred, const Tensor& target,
                                const Tensor& mask, bool per_frame, bool double_too) {
  const ScalarType dtype = pred.scalar_type();
  STD_TORCH_CHECK(pred.dim() == 5, op, ": pred must have 5 dimensions (N, C, F, H, W), got ",
                  pred.dim());
  STD_TORCH_CHECK(is_supported(dtype) && (double_too || dtype != ScalarType::Double), op,
                  ": pred must be float32, bfloat16 or float16", double_too ? " or float64" : "",
                  ", got ", torch::headeronly::toString(dtype));
  STD_TORCH_CHECK(sizes_of(target) == sizes_of(pred), op, ": target must have pred's shape ",
                  to_string(sizes_of(pred)), ", got ", to_string(sizes_of(target)));
  STD_TORCH_CHECK(target.scalar_type() == dtype, op, ": target must have pred's dtype ",
                  torch::headeronly::toString(dtype), ", got ",
                  torch::headeronly::toString(target.scalar_type()));
  const Ints mask_sizes{pred.size(0), 1, pred.size(2), pred.size(3), pred.size(4)};
  STD_TORCH_CHECK(sizes_of(mask) == mask_sizes, op, ": mask must have the shape ",
                  to_string(mask_sizes), ", got ", to_string(sizes_of(mask)));
  STD_TORCH_CHECK(target.device() == pred.device() && mask.device() == pred.device(), op,
                  ": pred, target and mask must be on one device");
  return {pred.size(0), pred.size(1),     pred.size(2),       pred.size(3), pred.size(4),
          per_frame,    strides_of(pred), strides_of(target), {},           {}};
}

inline void check_masked_l1_scale(const char* op, const Tensor& grad, const Tensor& scale,
                                  const Tensor& pred, const MaskedL1& p) {
  const Ints expected{p.clips, p.frames};
  STD_TORCH_CHECK(grad.numel() == 1, op, ": grad must have one element, got ", grad.numel());
  STD_TORCH_CHECK(sizes_of(scale) == expected, op, ": scale must have the shape ",
                  to_string(expected), ", got ", to_string(sizes_of(scale)));
  STD_TORCH_CHECK(grad.device() == pred.device(), op, ": grad must be on pred's device");
  STD_TORCH_CHECK(scale.device() == pred.device(), op, ": scale must be on pred's device");
}

}  // namespace vinpaint
