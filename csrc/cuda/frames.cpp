// SPDX-License-Identifier: Apache-2.0
#include "../frames_checks.h"
#include "stream.h"

namespace vinpaint::cuda {

namespace {

const uint8_t* bytes(const Tensor& t) { return static_cast<const uint8_t*>(t.const_data_ptr()); }

std::tuple<Tensor, Tensor> prepare_frames_cuda(const Tensor& frames, const Tensor& mask,
                                               const Tensor& mean, ScalarType dtype, int64_t grid,
                                               bool full, bool reduced) {
  const Frames p = check_prepare_frames(frames, mask, mean, dtype, grid, false);

  const NetworkInputs sizes = network_inputs(frames, p);
  const auto output = [&](bool wanted, const Ints& shape) {
    return wanted ? empty_channels_last(frames, shape, dtype) : empty_like(frames, {0}, dtype);
  };
  const Tensor full_input = output(full, sizes.full),
               reduced_input = output(reduced, sizes.reduced);
  if (p.pixels() == 0 || !(full || reduced)) return {full_input, reduced_input};
  const Tensor dense = torch::stable::contiguous(frames);
  const Tensor dense_mask = torch::stable::contiguous(mask);
  const Tensor float_mean = torch::stable::contiguous(cast(mean, ScalarType::Float));
  launch(frames, [&](void* stream) {
    return launch_prepare_frames(p, peak_of(frames), dense.const_data_ptr(), bytes(dense_mask),
                                 static_cast<const float*>(float_mean.const_data_ptr()),
                                 storage_of(dtype), full ? full_input.mutable_data_ptr() : nullptr,
                                 reduced ? reduced_input.mutable_data_ptr() : nullptr, stream);
  });
  return {full_input, reduced_input};
}

std::tuple<Tensor, Tensor> composite_frames_cuda(const Tensor& completed, const Tensor& frames,
                                                 const Tensor& mask) {
  const Frames p = check_composite_frames(completed, frames, mask, false);

  const Tensor out = empty_like(frames, sizes_of(frames), frames.scalar_type());
  Tensor invalid = empty_like(frames, {}, ScalarType::Int);
  if (p.pixels() == 0) return {out, torch::stable::zero_(invalid)};
  const Tensor dense_completed = channels_last(completed);
  const Tensor dense = torch::stable::contiguous(frames);
  const Tensor dense_mask = torch::stable::contiguous(mask);
  launch(frames, [&](void* stream) {
    return launch_composite_frames(p, peak_of(frames), storage_of(completed.scalar_type()),
                                   dense_completed.const_data_ptr(), dense.const_data_ptr(),
                                   bytes(dense_mask), out.mutable_data_ptr(),
                                   static_cast<unsigned*>(invalid.mutable_data_ptr()), stream);
  });
  return {out, invalid};
}

}  // namespace

VINPAINT_CUDA_OPERATORS(m) {
  m.impl("prepare_frames", TORCH_BOX(&prepare_frames_cuda));
  m.impl("composite_frames", TORCH_BOX(&composite_frames_cuda));
}

}  // namespace vinpaint::cuda
