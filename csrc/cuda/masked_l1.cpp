// SPDX-License-Identifier: Apache-2.0
#include "../masked_l1_checks.h"
#include "stream.h"

namespace vinpaint::cuda {

namespace {

const float* floats(const Tensor& t) { return static_cast<const float*>(t.const_data_ptr()); }

// A mask as the kernels read it; of another type it is converted.
struct Mask {
  Mask(const Tensor& mask, const Tensor& pred) : tensor(mask), storage(MaskStorage::kFloat) {
    const ScalarType dtype = mask.scalar_type();
    if (dtype == ScalarType::Byte || dtype == ScalarType::Bool)
      storage = MaskStorage::kByte;
    else if (dtype == pred.scalar_type())
      storage = MaskStorage::kLikePred;
    else
      tensor = cast(mask, ScalarType::Float);
  }
  Tensor tensor;
  MaskStorage storage;
};

std::tuple<Tensor, Tensor> masked_l1_cuda(const Tensor& pred, const Tensor& target,
                                          const Tensor& mask, bool per_frame) {
  MaskedL1 p = check_masked_l1("masked_l1", pred, target, mask, per_frame, false);

  Tensor loss = empty_like(pred, {}, ScalarType::Float);
  Tensor scale = empty_like(pred, {p.clips, p.frames}, ScalarType::Float);
  if (pred.numel() == 0) {
    torch::stable::zero_(loss);
    torch::stable::zero_(scale);
    return {loss, scale};
  }
  const Mask m(mask, pred);
  p.mask = strides_of(m.tensor);
  const Tensor workspace = empty_like(pred, {masked_l1_workspace(p)}, ScalarType::Double);
  launch(pred, [&](void* stream) {
    return launch_masked_l1(p, storage_of(pred.scalar_type()), pred.const_data_ptr(),
                            target.const_data_ptr(), m.storage, m.tensor.const_data_ptr(),
                            static_cast<double*>(workspace.mutable_data_ptr()),
                            static_cast<float*>(loss.mutable_data_ptr()),
                            static_cast<float*>(scale.mutable_data_ptr()), stream);
  });
  return {loss, scale};
}

Tensor masked_l1_backward_cuda(const Tensor& grad, const Tensor& pred, const Tensor& target,
                               const Tensor& mask, const Tensor& scale) {
  constexpr const char* op = "_masked_l1_backward";
  MaskedL1 p = check_masked_l1(op, pred, target, mask, false, false);
  check_masked_l1_scale(op, grad, scale, pred, p);

  const Tensor grad_pred = empty_channels_last(pred, sizes_of(pred), pred.scalar_type());
  if (pred.numel() == 0) return grad_pred;
  const Mask m(mask, pred);
  const Tensor float_grad = cast(grad, ScalarType::Float);
  const Tensor float_scale = torch::stable::contiguous(cast(scale, ScalarType::Float));
  p.mask = strides_of(m.tensor);
  p.grad = strides_of(grad_pred);
  launch(pred, [&](void* stream) {
    return launch_masked_l1_backward(p, storage_of(pred.scalar_type()), floats(float_grad),
                                     pred.const_data_ptr(), target.const_data_ptr(), m.storage,
                                     m.tensor.const_data_ptr(), floats(float_scale),
                                     grad_pred.mutable_data_ptr(), stream);
  });
  return grad_pred;
}

}  // namespace

VINPAINT_CUDA_OPERATORS(m) {
  m.impl("masked_l1", TORCH_BOX(&masked_l1_cuda));
  m.impl("_masked_l1_backward", TORCH_BOX(&masked_l1_backward_cuda));
}

}  // namespace vinpaint::cuda
