// SPDX-License-Identifier: Apache-2.0
#include "../batch_norm.h"

#include <cmath>

#include "vector.h"

namespace vinpaint {

namespace {

using device::kVector;
using device::load_vector;
using device::store_vector;

constexpr int kThreads = 256;           // of a block over rows
constexpr int kMergeThreads = 1024;     // of a block that merges other blocks' sums
constexpr int kMergeColumns = 32;       // channels it takes: neighbours, for whole lines of memory
constexpr int kUnroll = 4;              // rows a thread has under way at a time
constexpr int64_t kMostBlocks = 2048;   // of a pass without sums: a GPU's worth, twice over
constexpr int64_t kMergeAtOnce = 2048;  // partial statistics that are merged in one step
constexpr int64_t kMergeChunk = 256;    // and if there are more, how many make one first

// How a block is laid over rows x channels: a thread keeps to V neighbouring channels of every
// lanes-th row.
struct Tile {
  int columns;  // threads along the channels
  int lanes;    // threads along the rows
  int tiles;    // blocks along the channels

  constexpr int threads() const { return columns * lanes; }
};

Tile make_tile(int64_t vectors, int threads, int most_columns) {
  const int64_t tiles = (vectors + most_columns - 1) / most_columns;
  const int columns = static_cast<int>((vectors + tiles - 1) / tiles);
  return {columns, threads / columns, static_cast<int>(tiles)};
}

// Where a thread stands in its tile.
struct Place {
  int lane;
  int64_t channel;  // the first of its V
  bool inside;      // whether these channels exist
};

template <int V>
__device__ inline Place place_of(const Tile& tile, int64_t channels, int block) {
  const int thread = device::thread_index();
  const int64_t channel = (static_cast<int64_t>(block) * tile.columns + thread % tile.columns) * V;
  return {thread / tile.columns, channel, channel < channels};
}

// Adds up every value over the lanes, always in the same order; valid in lane 0. Takes N values of
// shared memory a thread.
template <int N, class A>
__device__ inline void sum_lanes(const Tile& tile, int lane, A (&values)[N]) {
  A* const mine = reinterpret_cast<A*>(device::shared_memory()) + device::thread_index();
  const int threads = tile.threads();
  for (int i = 0; i < N; ++i) mine[i * threads] = values[i];
  for (int left = tile.lanes; left > 1;) {
    device::sync_threads();
    const int half = (left + 1) / 2;
    if (lane < left - half)
      for (int i = 0; i < N; ++i) {
        values[i] += mine[i * threads + half * tile.columns];
        mine[i * threads] = values[i];
      }
    left = half;
  }
}

// f(row, is it there) for kUnroll rows of this thread at a time, from `begin` to `end`: first
// `load` for each, then `use`, so that the loads are under way together.
template <class Load, class Use>
__device__ inline void for_rows(int64_t begin, int64_t end, int64_t step, const Load& load,
                                const Use& use) {
  for (int64_t row = begin; row < end; row += step * kUnroll) {
#pragma unroll
    for (int i = 0; i < kUnroll; ++i)
      if (row + i * step < end) load(i, row + i * step);
#pragma unroll
    for (int i = 0; i < kUnroll; ++i)
      if (row + i * step < end) use(i, row + i * step);
  }
}

// Batch norm of one thread's channels.
template <int V>
struct Channels {
  float mean[V], scale[V], shift[V];

  __device__ Channels(const BatchNorm& norm, const Place& p) {
    for (int i = 0; i < V; ++i) {
      const int64_t c = p.inside ? p.channel + i : 0;
      mean[i] = norm.mean[c];
      scale[i] = norm.gamma[c] * (1.0f / sqrtf(norm.var[c] + norm.eps));
      shift[i] = norm.beta[c];
    }
  }
  // The ReLU's input. One function for forward and backward, so that both see the same sign.
  __device__ float normal(float centred, int i) const { return centred * scale[i] + shift[i]; }
};

// max(value, 0) that lets NaN through, as torch's does.
__device__ inline float relu_of(float value) { return 0.0f > value ? 0.0f : value; }

// --- statistics ----------------------------------------------------------------------------------

// One block takes rows_per_block rows of its tile's channels, a thread every lanes-th of them: sums
// of x - pivot and of its square. The pivot is the block's first row, so the squares never dwarf
// the deviation that is taken from them.
template <class T, int V>
__global__ __launch_bounds__(kThreads) void statistics_kernel(Rows n, Tile tile, const T* x,
                                                              PartialStatistics out) {
  const Index3 block = device::block_index();
  const Place p = place_of<V>(tile, n.channels, block.y);
  const int64_t size = rows_per_block(n), first = block.x * size;
  const int64_t last = first + size < n.rows ? first + size : n.rows;
  x += p.channel;
  float sums[2 * V] = {};  // of V channels, then of their squares
  float pivot[V];
  if (p.inside) {
    const auto head = load_vector<V>(x + first * n.channels);
    for (int i = 0; i < V; ++i) pivot[i] = head[i];
    device::Vector<T, V> values[kUnroll];
    for_rows(
        first + p.lane, last, tile.lanes,
        [&](int u, int64_t row) { values[u] = load_vector<V>(x + row * n.channels); },
        [&](int u, int64_t) {
          for (int i = 0; i < V; ++i) {
            const float d = values[u][i] - pivot[i];
            sums[i] += d;
            sums[V + i] += d * d;
          }
        });
  }
  sum_lanes(tile, p.lane, sums);
  const float count = static_cast<float>(last - first);
  if (block.y == 0 && device::thread_index() == 0) out.counts[block.x] = count;
  if (p.lane != 0 || !p.inside) return;
  const int64_t at = block.x * n.channels + p.channel;
  for (int i = 0; i < V; ++i) {
    const float deviation = sums[V + i] - sums[i] * sums[i] / count;
    out.means[at + i] = pivot[i] + sums[i] / count;
    out.deviations[at + i] = deviation > 0 ? deviation : 0.0f;
  }
}

struct Moments {
  double count, mean, deviation;
};

// Chan's formula for the union of two sets.
__device__ inline Moments merge(const Moments& a, const Moments& b) {
  const double count = a.count + b.count;
  if (count == 0) return a;
  const double share = b.count / count, step = b.mean - a.mean;
  return {count, a.mean + step * share, a.deviation + b.deviation + step * step * a.count * share};
}

// A thread merges every lanes-th of `chunk` partial statistics for one channel, in single precision
// from the first of them on; the block then merges its lanes. The result is one partial of `out`,
// or, if there is but one chunk and `mean` is given, the mean and the variance.
__global__ __launch_bounds__(kMergeThreads) void merge_statistics_kernel(PartialStatistics in,
                                                                         int64_t channels,
                                                                         int64_t chunk, Tile tile,
                                                                         PartialStatistics out,
                                                                         float* mean, float* var) {
  const Index3 block = device::block_index();
  const Place p = place_of<1>(tile, channels, block.y);
  const int64_t first = block.x * chunk;
  const int64_t last = first + chunk < in.blocks ? first + chunk : in.blocks;
  double total = 0;
  float pivot = 0, sum = 0, square = 0, within = 0;
  if (p.inside)
    for (int64_t i = first + p.lane; i < last; i += tile.lanes) {
      const float count = in.counts[i];
      if (count == 0) continue;
      const float block_mean = in.means[i * channels + p.channel];
      if (total == 0) pivot = block_mean;
      const float d = block_mean - pivot;
      total += count;
      sum += count * d;
      square += count * d * d;
      within += in.deviations[i * channels + p.channel];
    }
  Moments m{0, 0, 0};
  if (total > 0) {
    const double step = sum / total;
    m = {total, pivot + step, within + (square - sum * step)};
  }

  auto* const mine = reinterpret_cast<Moments*>(device::shared_memory()) + device::thread_index();
  *mine = m;
  for (int left = tile.lanes; left > 1;) {
    device::sync_threads();
    const int half = (left + 1) / 2;
    if (p.lane < left - half) *mine = m = merge(m, mine[half * tile.columns]);
    left = half;
  }
  if (p.lane != 0 || !p.inside) return;
  const double deviation = m.deviation > 0 ? m.deviation : 0;
  if (mean != nullptr) {
    mean[p.channel] = static_cast<float>(m.mean);
    var[p.channel] = static_cast<float>(deviation / m.count);
    return;
  }
  if (p.channel == 0) out.counts[block.x] = static_cast<float>(m.count);
  out.means[block.x * channels + p.channel] = static_cast<float>(m.mean);
  out.deviations[block.x * channels + p.channel] = static_cast<float>(deviation);
}

// --- normalise -----------------------------------------------------------------------------------

// A thread takes V channels of every lanes-th row: out = relu((pre - mean) scale + shift) +
// residual.
template <class T, int V>
__global__ __launch_bounds__(kThreads) void normalise_relu_kernel(Rows n, Tile tile, const T* pre,
                                                                  BatchNorm norm, const T* residual,
                                                                  T* out) {
  const Index3 block = device::block_index();
  const Place p = place_of<V>(tile, n.channels, block.y);
  if (!p.inside) return;
  const Channels<V> channels(norm, p);
  device::Vector<T, V> values[kUnroll], others[kUnroll];
  for_rows(
      block.x * static_cast<int64_t>(tile.lanes) + p.lane, n.rows,
      device::grid_size().x * static_cast<int64_t>(tile.lanes),
      [&](int u, int64_t row) {
        const int64_t at = row * n.channels + p.channel;
        values[u] = load_vector<V>(pre + at);
        if (residual != nullptr) others[u] = load_vector<V>(residual + at);
      },
      [&](int u, int64_t row) {
        float y[V];
        for (int i = 0; i < V; ++i) {
          y[i] = relu_of(channels.normal(values[u][i] - channels.mean[i], i));
          if (residual != nullptr) y[i] += others[u][i];
        }
        store_vector<V>(out + row * n.channels + p.channel, y);
      });
}

// One block takes rows_per_block rows of its tile's channels. With g = grad_out where the ReLU was
// open it leaves the sums of g, then those of g (pre - mean), each (blocks, channels).
template <class T, int V>
__global__ __launch_bounds__(kThreads) void normalise_relu_sums_kernel(Rows n, Tile tile,
                                                                       const T* grad_out,
                                                                       const T* pre, BatchNorm norm,
                                                                       float* partial) {
  const Index3 block = device::block_index();
  const Place p = place_of<V>(tile, n.channels, block.y);
  const int64_t size = rows_per_block(n), first = block.x * size;
  const int64_t last = first + size < n.rows ? first + size : n.rows;
  const Channels<V> channels(norm, p);
  float sums[2 * V] = {};  // of g for V channels, then of g (pre - mean)
  if (p.inside) {
    device::Vector<T, V> values[kUnroll], grads[kUnroll];
    for_rows(
        first + p.lane, last, tile.lanes,
        [&](int u, int64_t row) {
          const int64_t at = row * n.channels + p.channel;
          values[u] = load_vector<V>(pre + at);
          grads[u] = load_vector<V>(grad_out + at);
        },
        [&](int u, int64_t) {
          for (int i = 0; i < V; ++i) {
            const float d = values[u][i] - channels.mean[i];
            const float g = channels.normal(d, i) > 0 ? grads[u][i] : 0.0f;
            sums[i] += g;
            sums[V + i] += g * d;
          }
        });
  }
  sum_lanes(tile, p.lane, sums);
  if (p.lane != 0 || !p.inside) return;
  const int64_t at = block.x * n.channels + p.channel, second = row_blocks(n) * n.channels;
  for (int i = 0; i < V; ++i) {
    partial[at + i] = sums[i];
    partial[second + at + i] = sums[V + i];
  }
}

// One block adds up the blocks' sums of its tile's channels, a thread those of every lanes-th
// block; finish(channel, N sums) takes the result. partial is (N, blocks, channels).
template <int N, class Finish>
__global__ __launch_bounds__(kMergeThreads) void merge_sums_kernel(int64_t blocks, int64_t channels,
                                                                   Tile tile, const float* partial,
                                                                   Finish finish) {
  const Place p = place_of<1>(tile, channels, device::block_index().x);
  double sums[N] = {};
  if (p.inside)
    for (int64_t block = p.lane; block < blocks; block += tile.lanes)
      for (int i = 0; i < N; ++i) sums[i] += partial[(i * blocks + block) * channels + p.channel];
  sum_lanes(tile, p.lane, sums);
  if (p.lane == 0 && p.inside) finish(p.channel, sums);
}

struct FinishGradients {
  BatchNorm norm;
  BatchNormGradients out;
  double rows;

  __device__ void operator()(int64_t c, const double (&sums)[2]) const {
    const float rstd = 1.0f / sqrtf(norm.var[c] + norm.eps);
    const double per_row = norm.gamma[c] * rstd / rows;
    out.beta[c] = static_cast<float>(sums[0]);
    out.gamma[c] = static_cast<float>(sums[1] * rstd);
    out.offset[c] = static_cast<float>(per_row * sums[0]);
    out.slope[c] = static_cast<float>(per_row * sums[1] * rstd * rstd);
  }
};

struct FinishSum {
  float* out;

  __device__ void operator()(int64_t c, const double (&sums)[1]) const {
    out[c] = static_cast<float>(sums[0]);
  }
};

// A thread takes V channels of every lanes-th row: grad_pre = scale g - offset - slope (pre -
// mean).
template <class T, int V>
__global__ __launch_bounds__(kThreads) void normalise_relu_backward_kernel(
    Rows n, Tile tile, const T* grad_out, const T* pre, BatchNorm norm, BatchNormGradients sums,
    T* grad_pre) {
  const Index3 block = device::block_index();
  const Place p = place_of<V>(tile, n.channels, block.y);
  if (!p.inside) return;
  const Channels<V> channels(norm, p);
  float offset[V], slope[V];
  for (int i = 0; i < V; ++i) {
    offset[i] = sums.offset[p.channel + i];
    slope[i] = sums.slope[p.channel + i];
  }
  device::Vector<T, V> values[kUnroll], grads[kUnroll];
  for_rows(
      block.x * static_cast<int64_t>(tile.lanes) + p.lane, n.rows,
      device::grid_size().x * static_cast<int64_t>(tile.lanes),
      [&](int u, int64_t row) {
        const int64_t at = row * n.channels + p.channel;
        values[u] = load_vector<V>(pre + at);
        grads[u] = load_vector<V>(grad_out + at);
      },
      [&](int u, int64_t row) {
        float y[V];
        for (int i = 0; i < V; ++i) {
          const float d = values[u][i] - channels.mean[i];
          const float g = channels.normal(d, i) > 0 ? grads[u][i] : 0.0f;
          y[i] = channels.scale[i] * g - offset[i] - slope[i] * d;
        }
        store_vector<V>(grad_pre + row * n.channels + p.channel, y);
      });
}

// --- without batch norm --------------------------------------------------------------------------

// One block takes rows_per_block rows of its tile's channels: writes g = grad_out where out > 0 (or
// everywhere without `out`), and leaves the sums of g (blocks, channels).
template <class T, int V>
__global__ __launch_bounds__(kThreads) void relu_backward_kernel(Rows n, Tile tile,
                                                                 const T* grad_out, const T* out,
                                                                 T* grad, float* partial) {
  const Index3 block = device::block_index();
  const Place p = place_of<V>(tile, n.channels, block.y);
  const int64_t size = rows_per_block(n), first = block.x * size;
  const int64_t last = first + size < n.rows ? first + size : n.rows;
  float sums[V] = {};
  if (p.inside) {
    device::Vector<T, V> values[kUnroll], grads[kUnroll];
    for_rows(
        first + p.lane, last, tile.lanes,
        [&](int u, int64_t row) {
          const int64_t at = row * n.channels + p.channel;
          if (out != nullptr) values[u] = load_vector<V>(out + at);
          grads[u] = load_vector<V>(grad_out + at);
        },
        [&](int u, int64_t row) {
          float g[V];
          for (int i = 0; i < V; ++i) {
            g[i] = out == nullptr || values[u][i] > 0 ? grads[u][i] : 0.0f;
            sums[i] += g[i];
          }
          if (grad != nullptr) store_vector<V>(grad + row * n.channels + p.channel, g);
        });
  }
  if (partial == nullptr) return;
  sum_lanes(tile, p.lane, sums);
  if (p.lane != 0 || !p.inside) return;
  for (int i = 0; i < V; ++i) partial[block.x * n.channels + p.channel + i] = sums[i];
}

// A thread takes V channels of every lanes-th row: out = act(out + other + bias) + residual.
template <class T, int V>
__global__ __launch_bounds__(kThreads) void finish_kernel(Rows n, Tile tile, T* out, const T* other,
                                                          const float* bias, const T* residual,
                                                          bool relu) {
  const Index3 block = device::block_index();
  const Place p = place_of<V>(tile, n.channels, block.y);
  if (!p.inside) return;
  float added[V] = {};
  if (bias != nullptr)
    for (int i = 0; i < V; ++i) added[i] = bias[p.channel + i];
  device::Vector<T, V> values[kUnroll], others[kUnroll], residuals[kUnroll];
  for_rows(
      block.x * static_cast<int64_t>(tile.lanes) + p.lane, n.rows,
      device::grid_size().x * static_cast<int64_t>(tile.lanes),
      [&](int u, int64_t row) {
        const int64_t at = row * n.channels + p.channel;
        values[u] = load_vector<V>(out + at);
        if (other != nullptr) others[u] = load_vector<V>(other + at);
        if (residual != nullptr) residuals[u] = load_vector<V>(residual + at);
      },
      [&](int u, int64_t row) {
        float y[V];
#pragma unroll
        for (int i = 0; i < V; ++i) {
          y[i] = values[u][i];
          if (other != nullptr) y[i] += others[u][i];
          y[i] += added[i];
          if (relu) y[i] = relu_of(y[i]);
          if (residual != nullptr) y[i] += residuals[u][i];
        }
        store_vector<V>(out + row * n.channels + p.channel, y);
      });
}

// --- launchers -----------------------------------------------------------------------------------

bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

// f(T(), V, tile) with the widest access that the channels and all pointers allow.
template <class F, class... Pointers>
const char* with_access(Rows n, Storage storage, const F& f, const Pointers*... pointers) {
  return with_storage(storage, [&](auto type) {
    using T = decltype(type);
    constexpr int wide = kVector<T>;
    if (n.channels % wide == 0 && (aligned(pointers) && ...))
      return f(type, std::integral_constant<int, wide>(),
               make_tile(n.channels / wide, kThreads, kThreads));
    return f(type, std::integral_constant<int, 1>(), make_tile(n.channels, kThreads, kThreads));
  });
}

// The grid of a pass with sums, and of one without.
Index3 grid_of_sums(Rows n, const Tile& tile) {
  return {static_cast<int>(row_blocks(n)), tile.tiles, 1};
}
Index3 grid_of_rows(Rows n, const Tile& tile) {
  const int64_t rows = tile.lanes * kUnroll, wanted = (n.rows + rows - 1) / rows;
  return {static_cast<int>(wanted < kMostBlocks ? wanted : kMostBlocks), tile.tiles, 1};
}

template <int N, class Finish>
const char* launch_merge_sums(Rows n, const float* partial, const Finish& finish, void* stream) {
  const Tile tile = make_tile(n.channels, kMergeThreads, kMergeColumns);
  return launch(merge_sums_kernel<N, Finish>, {tile.tiles, 1, 1}, tile.threads(),
                tile.threads() * N * static_cast<int>(sizeof(double)), stream, row_blocks(n),
                n.channels, tile, partial, finish);
}

constexpr int64_t merge_chunks(int64_t blocks) {
  return blocks <= kMergeAtOnce ? 0 : (blocks + kMergeChunk - 1) / kMergeChunk;
}

}  // namespace

const char* launch_statistics(Rows n, Storage storage, const void* x, PartialStatistics out,
                              void* stream) {
  return with_access(
      n, storage,
      [&](auto type, auto width, const Tile& tile) {
        using T = decltype(type);
        constexpr int V = width.value;
        return launch(statistics_kernel<T, V>, grid_of_sums(n, tile), tile.threads(),
                      tile.threads() * 2 * V * static_cast<int>(sizeof(float)), stream, n, tile,
                      static_cast<const T*>(x), out);
      },
      x);
}

int64_t merge_statistics_workspace(int64_t blocks, int64_t channels) {
  return merge_chunks(blocks) * (1 + 2 * channels);
}

const char* launch_merge_statistics(const PartialStatistics& partial, int64_t channels,
                                    float* workspace, float* mean, float* var, void* stream) {
  const Tile tile = make_tile(channels, kMergeThreads, kMergeColumns);
  const auto merge_all = [&](const PartialStatistics& in, int64_t chunk,
                             const PartialStatistics& out, float* mean_out, float* var_out) {
    const auto chunks = static_cast<int>((in.blocks + chunk - 1) / chunk);
    return launch(merge_statistics_kernel, {chunks, tile.tiles, 1}, tile.threads(),
                  tile.threads() * static_cast<int>(sizeof(Moments)), stream, in, channels, chunk,
                  tile, out, mean_out, var_out);
  };
  const int64_t chunks = merge_chunks(partial.blocks);
  if (chunks == 0) return merge_all(partial, kMergeAtOnce, {}, mean, var);
  const PartialStatistics merged{chunks, workspace, workspace + chunks,
                                 workspace + chunks * (1 + channels)};
  const char* const error = merge_all(partial, kMergeChunk, merged, nullptr, nullptr);
  return error != nullptr ? error : merge_all(merged, chunks, {}, mean, var);
}

const char* launch_normalise_relu(Rows n, Storage storage, const void* pre, const BatchNorm& norm,
                                  const void* residual, void* out, void* stream) {
  return with_access(
      n, storage,
      [&](auto type, auto width, const Tile& tile) {
        using T = decltype(type);
        return launch(normalise_relu_kernel<T, width.value>, grid_of_rows(n, tile), tile.threads(),
                      0, stream, n, tile, static_cast<const T*>(pre), norm,
                      static_cast<const T*>(residual), static_cast<T*>(out));
      },
      pre, residual, out);
}

const char* launch_normalise_relu_sums(Rows n, Storage storage, const void* grad_out,
                                       const void* pre, const BatchNorm& norm, float* workspace,
                                       const BatchNormGradients& out, void* stream) {
  const char* const error = with_access(
      n, storage,
      [&](auto type, auto width, const Tile& tile) {
        using T = decltype(type);
        constexpr int V = width.value;
        return launch(normalise_relu_sums_kernel<T, V>, grid_of_sums(n, tile), tile.threads(),
                      tile.threads() * 2 * V * static_cast<int>(sizeof(float)), stream, n, tile,
                      static_cast<const T*>(grad_out), static_cast<const T*>(pre), norm, workspace);
      },
      grad_out, pre);
  if (error != nullptr) return error;
  const FinishGradients finish{norm, out, static_cast<double>(n.rows)};
  return launch_merge_sums<2>(n, workspace, finish, stream);
}

const char* launch_normalise_relu_backward(Rows n, Storage storage, const void* grad_out,
                                           const void* pre, const BatchNorm& norm,
                                           const BatchNormGradients& sums, void* grad_pre,
                                           void* stream) {
  return with_access(
      n, storage,
      [&](auto type, auto width, const Tile& tile) {
        using T = decltype(type);
        return launch(normalise_relu_backward_kernel<T, width.value>, grid_of_rows(n, tile),
                      tile.threads(), 0, stream, n, tile, static_cast<const T*>(grad_out),
                      static_cast<const T*>(pre), norm, sums, static_cast<T*>(grad_pre));
      },
      grad_out, pre, grad_pre);
}

const char* launch_relu_backward(Rows n, Storage storage, const void* grad_out, const void* out,
                                 bool relu, float* workspace, void* grad, float* sum,
                                 void* stream) {
  const void* const mask = relu ? out : nullptr;
  float* const partial = sum != nullptr ? workspace : nullptr;
  const char* const error = with_access(
      n, storage,
      [&](auto type, auto width, const Tile& tile) {
        using T = decltype(type);
        constexpr int V = width.value;
        return launch(relu_backward_kernel<T, V>, grid_of_sums(n, tile), tile.threads(),
                      tile.threads() * V * static_cast<int>(sizeof(float)), stream, n, tile,
                      static_cast<const T*>(grad_out), static_cast<const T*>(mask),
                      static_cast<T*>(grad), partial);
      },
      grad_out, mask, grad);
  if (error != nullptr || sum == nullptr) return error;
  return launch_merge_sums<1>(n, workspace, FinishSum{sum}, stream);
}

const char* launch_finish(Rows n, Storage storage, void* out, const void* other, const float* bias,
                          const void* residual, bool relu, void* stream) {
  if (other == nullptr && bias == nullptr && residual == nullptr && !relu) return nullptr;
  return with_access(
      n, storage,
      [&](auto type, auto width, const Tile& tile) {
        using T = decltype(type);
        return launch(finish_kernel<T, width.value>, grid_of_rows(n, tile), tile.threads(), 0,
                      stream, n, tile, static_cast<T*>(out), static_cast<const T*>(other), bias,
                      static_cast<const T*>(residual), relu);
      },
      out, other, residual);
}

}  // namespace vinpaint
