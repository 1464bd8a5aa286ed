// SPDX-License-Identifier: Apache-2.0
// How a host file reaches the current CUDA stream.
#pragma once

#include <torch/csrc/stable/accelerator.h>

#include "../tensor.h"

// Weak: a torch without CUDA lacks it, and a strong reference would break the import there.
extern "C" [[gnu::weak]] AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index,
                                                                           void** ret_stream);

namespace vinpaint::cuda {

// Calls f(stream) on the device of `t` and its current stream; f returns null or an error text.
template <class F>
void launch(const Tensor& t, const F& f) {
#ifdef VINPAINT_EMULATOR
  (void)t;
  const char* const error = f(nullptr);
#else
  STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream != nullptr,
                  "vinpaint: this torch has no CUDA support");
  const int32_t device = t.get_device_index();
  const torch::stable::accelerator::DeviceGuard guard(device);
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  const char* const error = f(stream);
#endif
  STD_TORCH_CHECK(error == nullptr, "vinpaint: launch failed: ", error);
}

}  // namespace vinpaint::cuda
