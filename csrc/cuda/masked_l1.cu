// SPDX-License-Identifier: Apache-2.0
#include "../masked_l1.h"

#include <cmath>

#include "vector.h"

namespace vinpaint {

namespace {

using device::kVector;
using device::load_vector;
using device::store_vector;

constexpr int kWarp = 32;
constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kColours = 3;  // the channels that pixels read together have

// A thread takes P neighbouring pixels: kVector of them if they have three channels, lie one after
// the other in memory and can be read by 16 bytes, else one, of any strides and channels.
template <class T, int P>
struct Pixels {
  float values[P * kColours];  // channel fastest

  // As pixels of three neighbouring values, or as three planes `plane` apart.
  __device__ void load(const T* from, int64_t plane) {
    if (plane == 1) {
      for (int i = 0; i < kColours; ++i) {
        const auto v = load_vector<P>(from + i * P);
        for (int j = 0; j < P; ++j) values[i * P + j] = v[j];
      }
    } else {
      for (int c = 0; c < kColours; ++c) {
        const auto v = load_vector<P>(from + c * plane);
        for (int j = 0; j < P; ++j) values[j * kColours + c] = v[j];
      }
    }
  }
};

// Of pixel i of a frame. Pixels that are read together lie one after the other.
template <int P>
__device__ inline int64_t offset_of(const Strides5& s, int64_t width, int64_t n, int64_t f,
                                    int64_t i) {
  const int64_t frame = n * s.n + f * s.f;
  if constexpr (P > 1) return frame + i * s.w;
  return frame + i / width * s.h + i % width * s.w;
}

// The mask's values of P pixels; whether any is not 0.
template <class T, int P>
__device__ inline bool load_mask(MaskStorage storage, const void* mask, int64_t at,
                                 float (&weights)[P]) {
  if (storage == MaskStorage::kFloat) {
    constexpr int V = P == 1 ? 1 : kVector<float>;
    for (int i = 0; i < P; i += V) {
      const auto v = load_vector<V>(static_cast<const float*>(mask) + at + i);
      for (int j = 0; j < V; ++j) weights[i + j] = v[j];
    }
  } else if (storage == MaskStorage::kLikePred) {
    const auto v = load_vector<P>(static_cast<const T*>(mask) + at);
    for (int j = 0; j < P; ++j) weights[j] = v[j];
  } else if constexpr (P == 1) {
    weights[0] = static_cast<const uint8_t*>(mask)[at];
  } else {
    const uint8_t* const bytes = static_cast<const uint8_t*>(mask) + at;
    for (int i = 0; i < P; i += 4) {
      const uint32_t four = *reinterpret_cast<const uint32_t*>(bytes + i);
      for (int j = 0; j < 4; ++j) weights[i + j] = static_cast<float>(four >> (8 * j) & 0xff);
    }
  }
  bool any = false;
  for (int j = 0; j < P; ++j) any = any || weights[j] != 0;
  return any;
}

// The sum over a warp, always in the same order; in every lane.
template <class A>
__device__ inline A warp_sum(A value) {
  for (int half = kWarp / 2; half > 0; half /= 2) value += device::shuffle_xor(value, half);
  return value;
}

struct Sums {
  double error, hole;  // of mask * |pred - target|, and of the mask
};

// Merges the chunks' sums to frames, groups and the loss. A warp adds up one frame or group at a
// time, each lane every 32nd of its parts.
__device__ inline void merge(const MaskedL1& p, const Sums* chunks, Sums* frames, double* losses,
                             float* loss, float* scale) {
  const int lane = device::thread_index() % kWarp, warp = device::thread_index() / kWarp;
  const auto total = [lane](const Sums* parts, int64_t count) {
    Sums s{0, 0};
    for (int64_t i = lane; i < count; i += kWarp) {
      s.error += parts[i].error;
      s.hole += parts[i].hole;
    }
    return Sums{warp_sum(s.error), warp_sum(s.hole)};
  };
  const int64_t frame_chunks = masked_l1_chunks(p), group_frames = p.frames_per_group();
  for (int64_t frame = warp; frame < p.all_frames(); frame += kWarps) {
    const Sums s = total(chunks + frame * frame_chunks, frame_chunks);
    if (lane == 0) frames[frame] = s;
  }
  device::sync_threads();
  for (int64_t group = warp; group < p.groups(); group += kWarps) {
    const Sums s = total(frames + group * group_frames, group_frames);
    const double values = s.hole * static_cast<double>(p.channels);
    if (lane == 0) losses[group] = s.hole > 0 ? s.error / values : 0.0;
    const double weight = s.hole > 0 ? 1 / (values * static_cast<double>(p.groups())) : 0.0;
    for (int64_t f = lane; f < group_frames; f += kWarp)
      scale[group * group_frames + f] = static_cast<float>(weight);
  }
  device::sync_threads();
  if (warp != 0) return;
  double sum = 0;
  for (int64_t group = lane; group < p.groups(); group += kWarp) sum += losses[group];
  sum = warp_sum(sum);
  if (lane == 0) *loss = static_cast<float>(sum / static_cast<double>(p.groups()));
}

// One block sums chunks of kMaskedL1ChunkPixels pixels of one frame, a thread P neighbouring pixels
// at a time with all their channels: mask * |pred - target| and mask. The block that is done last
// merges all the chunks. `counter` must be 0.
template <class T, int P>
__global__ __launch_bounds__(kThreads,
                             2) void masked_l1_kernel(MaskedL1 p, const T* pred, const T* target,
                                                      MaskStorage mask_storage, const void* mask,
                                                      unsigned* counter, Sums* sums, float* loss,
                                                      float* scale) {
  const int thread = device::thread_index();
  Sums* const warp_sums = reinterpret_cast<Sums*>(device::shared_memory());
  const int64_t chunks = masked_l1_chunks(p), all_chunks = p.all_frames() * chunks;
  for (int64_t chunk = device::block_index().x; chunk < all_chunks;
       chunk += device::grid_size().x) {
    const int64_t frame = chunk / chunks, n = frame / p.frames, f = frame % p.frames;
    const int64_t first = chunk % chunks * kMaskedL1ChunkPixels;
    const int64_t end =
        first + kMaskedL1ChunkPixels < p.pixels() ? first + kMaskedL1ChunkPixels : p.pixels();
    float error = 0, hole = 0;
    for (int64_t i = first + thread * P; i < end; i += kThreads * P) {
      float weights[P];
      // Where there is no hole, neither pred nor target is read.
      if (!load_mask<T>(mask_storage, mask, offset_of<P>(p.mask, p.width, n, f, i), weights))
        continue;
      const T* const a = pred + offset_of<P>(p.pred, p.width, n, f, i);
      const T* const b = target + offset_of<P>(p.target, p.width, n, f, i);
      if constexpr (P == 1) {
        float sum = 0;
        for (int64_t c = 0; c < p.channels; ++c)
          sum += fabsf(device::widen(a[c * p.pred.c]) - device::widen(b[c * p.target.c]));
        error += weights[0] * sum;
        hole += weights[0];
      } else {
        Pixels<T, P> x, y;
        x.load(a, p.pred.c);
        y.load(b, p.target.c);
        for (int j = 0; j < P; ++j) {
          float sum = 0;
          for (int c = j * kColours; c < (j + 1) * kColours; ++c)
            sum += fabsf(x.values[c] - y.values[c]);
          hole += weights[j];
          if (weights[j] != 0) error += weights[j] * sum;
        }
      }
    }
    error = warp_sum(error);
    hole = warp_sum(hole);
    device::sync_threads();  // the previous chunk's sums have been read
    if (thread % kWarp == 0) warp_sums[thread / kWarp] = {error, hole};
    device::sync_threads();
    if (thread == 0) {
      Sums s = warp_sums[0];
      for (int i = 1; i < kWarps; ++i) {
        s.error += warp_sums[i].error;
        s.hole += warp_sums[i].hole;
      }
      sums[chunk] = s;
    }
  }
  bool* const last = reinterpret_cast<bool*>(warp_sums + kWarps);
  if (thread == 0) {
    *last = device::atomic_count(counter) == static_cast<unsigned>(device::grid_size().x) - 1;
    device::acquire();
  }
  device::sync_threads();
  if (!*last) return;
  Sums* const frames = sums + all_chunks;
  merge(p, sums, frames, reinterpret_cast<double*>(frames + p.all_frames()), loss, scale);
}

// A thread writes P neighbouring pixels with all their channels: grad * scale * mask * sign(pred -
// target).
template <class T, int P>
__global__ __launch_bounds__(kThreads) void masked_l1_backward_kernel(
    MaskedL1 p, const float* grad, const T* pred, const T* target, MaskStorage mask_storage,
    const void* mask, const float* scale, T* grad_pred) {
  const float g = *grad;
  const int64_t step = static_cast<int64_t>(device::grid_size().x) * kThreads * P;
  for (int64_t at =
           (static_cast<int64_t>(device::block_index().x) * kThreads + device::thread_index()) * P;
       at < p.all_frames() * p.pixels(); at += step) {
    const int64_t frame = at / p.pixels(), n = frame / p.frames, f = frame % p.frames;
    const int64_t i = at % p.pixels();
    const float factor = g * scale[frame];
    float weights[P];
    const bool any =
        load_mask<T>(mask_storage, mask, offset_of<P>(p.mask, p.width, n, f, i), weights);
    const T* const a = pred + offset_of<P>(p.pred, p.width, n, f, i);
    const T* const b = target + offset_of<P>(p.target, p.width, n, f, i);
    T* const out = grad_pred + offset_of<P>(p.grad, p.width, n, f, i);
    const auto gradient = [factor](float weight, float difference) {
      const float size = factor * weight;
      return difference > 0 ? size : difference < 0 ? -size : 0.0f;
    };
    if constexpr (P == 1) {
      for (int64_t c = 0; c < p.channels; ++c) {
        const float d =
            any ? device::widen(a[c * p.pred.c]) - device::widen(b[c * p.target.c]) : 0.0f;
        out[c * p.grad.c] = device::narrow<T>(gradient(weights[0], d));
      }
    } else {
      float results[kColours][P] = {};  // as they lie in memory
      if (any) {
        Pixels<T, P> x, y;
        x.load(a, p.pred.c);
        y.load(b, p.target.c);
        for (int c = 0; c < P * kColours; ++c)
          results[c / P][c % P] = gradient(weights[c / kColours], x.values[c] - y.values[c]);
      }
      for (int c = 0; c < kColours; ++c) store_vector(out + c * P, results[c]);
    }
  }
}

// Whether P neighbouring pixels of a tensor can be read or written at once.
bool together(const MaskedL1& p, const Strides5& s, const void* data, int pixels,
              bool planes_allowed) {
  const auto whole = [pixels](int64_t size, int64_t stride) {
    return size == 1 || stride % pixels == 0;
  };
  const bool packed = s.c == 1 && s.w == kColours && s.h == p.width * kColours;
  const bool planes = planes_allowed && s.w == 1 && s.h == p.width && s.c % pixels == 0;
  return (packed || planes) && whole(p.clips, s.n) && whole(p.frames, s.f) &&
         reinterpret_cast<uintptr_t>(data) % 16 == 0;
}

bool mask_together(const MaskedL1& p, const void* data, int pixels) {
  Strides5 one_plane = p.mask;
  one_plane.c = 0;
  return together(p, one_plane, data, pixels, true);
}

// f(T(), pixels a thread takes at a time) for pred, target and the mask.
template <class F>
const char* with_pixels(const MaskedL1& p, Storage storage, const void* pred, const void* target,
                        const void* mask, const F& f) {
  return with_storage(storage, [&](auto type) {
    using T = decltype(type);
    constexpr int P = kVector<T>;
    if (p.channels == kColours && p.pixels() % P == 0 && together(p, p.pred, pred, P, true) &&
        together(p, p.target, target, P, true) && mask_together(p, mask, P))
      return f(type, std::integral_constant<int, P>());
    return f(type, std::integral_constant<int, 1>());
  });
}

int blocks_for(int64_t wanted) {
  constexpr int64_t most = 1 << 20;
  return static_cast<int>(wanted < most ? wanted : most);
}

}  // namespace

const char* launch_masked_l1(const MaskedL1& p, Storage storage, const void* pred,
                             const void* target, MaskStorage mask_storage, const void* mask,
                             double* workspace, float* loss, float* scale, void* stream) {
  auto* const counter = reinterpret_cast<unsigned*>(workspace);
  auto* const sums = reinterpret_cast<Sums*>(workspace + 1);
  const char* const error = clear(counter, sizeof *counter, stream);
  if (error != nullptr) return error;
  return with_pixels(p, storage, pred, target, mask, [&](auto type, auto pixels) {
    using T = decltype(type);
    constexpr int shared = kWarps * static_cast<int>(sizeof(Sums)) + 1;
    return launch(masked_l1_kernel<T, pixels.value>,
                  {blocks_for(p.all_frames() * masked_l1_chunks(p)), 1, 1}, kThreads, shared,
                  stream, p, static_cast<const T*>(pred), static_cast<const T*>(target),
                  mask_storage, mask, counter, sums, loss, scale);
  });
}

const char* launch_masked_l1_backward(const MaskedL1& p, Storage storage, const float* grad,
                                      const void* pred, const void* target,
                                      MaskStorage mask_storage, const void* mask,
                                      const float* scale, void* grad_pred, void* stream) {
  return with_pixels(p, storage, pred, target, mask, [&](auto type, auto pixels) {
    using T = decltype(type);
    constexpr int P = pixels.value;
    const int64_t a_block = kThreads * P, all = p.all_frames() * p.pixels();
    return launch(masked_l1_backward_kernel<T, P>,
                  {blocks_for((all + a_block - 1) / a_block), 1, 1}, kThreads, 0, stream, p, grad,
                  static_cast<const T*>(pred), static_cast<const T*>(target), mask_storage, mask,
                  scale, static_cast<T*>(grad_pred));
  });
}

}  // namespace vinpaint
