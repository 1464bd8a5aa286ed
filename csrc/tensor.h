// SPDX-License-Identifier: Apache-2.0
// The few helpers over torch's stable ABI that every host file shares.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "storage.h"

// Registers operators for a dispatch key. The emulator's library holds the CUDA operators under a
// name of its own, for CPU tensors.
#ifdef VINPAINT_EMULATOR
#define VINPAINT_LIBRARY(m) STABLE_TORCH_LIBRARY(vinpaint_emulated, m)
#define VINPAINT_CUDA_OPERATORS(m) STABLE_TORCH_LIBRARY_IMPL(vinpaint_emulated, CPU, m)
#else
#define VINPAINT_LIBRARY(m) STABLE_TORCH_LIBRARY(vinpaint, m)
#define VINPAINT_CUDA_OPERATORS(m) STABLE_TORCH_LIBRARY_IMPL(vinpaint, CUDA, m)
#endif

namespace vinpaint {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;
using Tensors = std::vector<Tensor>;
using Ints = std::vector<int64_t>;
using Flags =
    torch::headeronly::HeaderOnlyArrayRef<bool>;  // std::vector<bool> has no array behind it

namespace detail {
template <class T>
struct Results {
  static constexpr size_t count = 1;
  static T take(StableIValue* stack) { return torch::stable::detail::to<T>(stack[0]); }
};
template <class... Ts>
struct Results<std::tuple<Ts...>> {
  static constexpr size_t count = sizeof...(Ts);
  static std::tuple<Ts...> take(StableIValue* stack) {
    return torch::stable::detail::unbox_to_tuple<Ts...>(stack);
  }
};
}  // namespace detail

// Calls an operator of torch through its dispatcher. The argument types must be the schema's: an
// optional for `?`, a vector for a list. Scalar arguments cannot cross the stable ABI of 2.10.
template <class R, class... Args>
R call(const char* name, const char* overload, const Args&... args) {
  constexpr size_t slots = std::max(sizeof...(Args), detail::Results<R>::count);
  std::array<StableIValue, slots> stack{torch::stable::detail::from(args)...};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher(name, overload, stack.data(), TORCH_ABI_VERSION));
  return detail::Results<R>::take(stack.data());
}

// The same memory under other sizes and strides. Not a view in autograd's eyes, so an operator may
// return it.
inline Tensor reinterpret(const Tensor& t, const Ints& sizes, const Ints& strides) {
  AtenTensorHandle handle = nullptr;
  const int64_t further = 0;  // beyond t's own storage offset, which is kept
  TORCH_ERROR_CODE_CHECK(aoti_torch__reinterpret_tensor(
      t.get(), static_cast<int64_t>(sizes.size()), sizes.data(), strides.data(), further, &handle));
  return Tensor(handle);
}

inline Ints sizes_of(const Tensor& t) { return Ints(t.sizes().begin(), t.sizes().end()); }

inline std::string to_string(const Ints& values) {
  std::string text = "(";
  for (size_t i = 0; i < values.size(); ++i) text += (i ? ", " : "") + std::to_string(values[i]);
  return text + ")";
}

// Strides of a (N, C, F, H, W) tensor that lies in memory as (N, F, H, W, C).
inline Ints channels_last_strides(const Ints& s) {
  return {s[1] * s[2] * s[3] * s[4], 1, s[1] * s[3] * s[4], s[1] * s[4], s[1]};
}

// `t` (N, C, F, H, W) lying as (N, F, H, W, C), with the strides to say so also where a size is 1.
inline Tensor channels_last(const Tensor& t) {
  const Tensor dense =
      torch::stable::contiguous(t, torch::headeronly::MemoryFormat::ChannelsLast3d);
  const Ints sizes = sizes_of(t);
  return reinterpret(dense, sizes, channels_last_strides(sizes));
}

inline OptionalTensor channels_last(const OptionalTensor& t) {
  if (!t) return std::nullopt;
  return channels_last(*t);
}

inline Tensor empty_like(const Tensor& like, const Ints& sizes, ScalarType dtype) {
  return torch::stable::empty(sizes, dtype, std::nullopt, like.device());
}

inline Tensor empty_channels_last(const Tensor& like, const Ints& sizes, ScalarType dtype) {
  Tensor dense = empty_like(like, {sizes[0], sizes[2], sizes[3], sizes[4], sizes[1]}, dtype);
  return reinterpret(dense, sizes, channels_last_strides(sizes));
}

template <class T>
T* pointer(const Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
}

template <class T>
const T* const_pointer(const Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}

// Null for an absent tensor.
template <class T>
const T* const_pointer(const OptionalTensor& t) {
  return t ? const_pointer<T>(*t) : nullptr;
}

// What an operator returns in place of a result that is absent or not needed.
inline Tensor nothing(const Tensor& like) { return empty_like(like, {0}, like.scalar_type()); }

inline Tensor cast(const Tensor& t, ScalarType dtype) {
  return t.scalar_type() == dtype ? t : torch::stable::to(t, dtype);
}

inline OptionalTensor cast(const OptionalTensor& t, ScalarType dtype) {
  if (!t) return std::nullopt;
  return cast(*t, dtype);
}

// Sums, statistics and coefficients: double for double, float for everything else.
inline ScalarType accumulation_dtype(ScalarType dtype) {
  return dtype == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// How a tensor of a dtype that a GPU takes is stored.
inline Storage storage_of(ScalarType dtype) {
  return dtype == ScalarType::Half       ? Storage::kHalf
         : dtype == ScalarType::BFloat16 ? Storage::kBFloat16
                                         : Storage::kFloat;
}

inline bool is_supported(ScalarType dtype) {
  return dtype == ScalarType::Float || dtype == ScalarType::BFloat16 || dtype == ScalarType::Half ||
         dtype == ScalarType::Double;
}

}  // namespace vinpaint
