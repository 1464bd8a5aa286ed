// SPDX-License-Identifier: Apache-2.0
// The implicit-GEMM convolution kernel by mma.sync, for compute capability 8.0 and newer;
// instantiated once a stored type, so that the types compile side by side.
#pragma once

#include "../implicit_gemm.h"
#include "device.h"

namespace vinpaint {

namespace implicit_gemm {

using namespace device;

constexpr int kThreads = 128;
constexpr int kWarp = 32;
constexpr int kRows = 1 << kPatchLog2;  // positions of a block
constexpr int kRowBytes = 64;           // of a tile row: one step along the sum
constexpr int kChunkBytes = 16;         // what one asynchronous copy moves
constexpr int kRowChunks = kRowBytes / kChunkBytes;
constexpr int kRowsPerPass = kThreads / kRowChunks;

// How a block of kRows x Columns is cut among its four warps.
template <int Columns_>
struct Tile {
  static constexpr int columns = Columns_;
  static constexpr int warps_n = Columns_ >= 64 ? 2 : 1;
  static constexpr int warps_m = kThreads / kWarp / warps_n;
  static constexpr int warp_rows = kRows / warps_m;
  static constexpr int warp_columns = Columns_ / warps_n;
  static constexpr int stages = Columns_ == 128 ? 3 : 4;
  static constexpr int stage_bytes = (kRows + Columns_) * kRowBytes;
  static constexpr int blocks_per_multiprocessor = Columns_ >= 64 ? 2 : 3;
};

// Where chunk `chunk` of row `row` lies in a tile, so that eight rows of a column of chunks fall on
// different banks.
__device__ inline int swizzled(int row, int chunk) {
  return row * kRowBytes + (chunk ^ ((row >> 1) & (kRowChunks - 1))) * kChunkBytes;
}

// The taps of this phase along one axis that reach the input from some position of the patch.
struct LiveTaps {
  int count, first, step, kernel_first, kernel_step;
};

// A block's share of the work.
struct Place {
  int batch;
  int position[3];  // first position along F, H, W
  int phase[3];
  LiveTaps taps[3];
  int columns_first;  // first output channel
  int64_t row_block;
};

__device__ inline LiveTaps live_taps(const Axis& a, int phase, int first_position, int patch) {
  const bool second = phase == 1;
  LiveTaps t{second ? a.taps[1].count : a.taps[0].count, second ? a.taps[1].first : a.taps[0].first,
             second ? a.taps[1].step : a.taps[0].step,
             second ? a.taps[1].kernel_first : a.taps[0].kernel_first,
             second ? a.taps[1].kernel_step : a.taps[0].kernel_step};
  const int end = first_position + patch, positions = a.positions();
  const int low = first_position * a.in_step;
  const int high = ((end < positions ? end : positions) - 1) * a.in_step;
  const auto misses = [&](int offset) { return high + offset < 0 || low + offset >= a.in; };
  // Offsets grow or fall with the tap, so those that reach the input are neighbours.
  while (t.count > 0 && misses(t.first)) {
    t.first += t.step;
    t.kernel_first += t.kernel_step;
    --t.count;
  }
  while (t.count > 0 && misses(t.first + (t.count - 1) * t.step)) --t.count;
  return t;
}

template <class Tile>
__device__ inline Place find_place(const ImplicitGemm& g) {
  Place p;
  const int tiles = (g.out_channels + Tile::columns - 1) / Tile::columns;
  int64_t i = block_index().x;
  p.columns_first = static_cast<int>(i % tiles) * Tile::columns;
  i /= tiles;
  p.row_block = i;
  const auto take = [&](int64_t count) {
    const int digit = static_cast<int>(i % count);
    i /= count;
    return digit;
  };
#pragma unroll
  for (int axis = 2; axis >= 0; --axis) p.phase[axis] = take(g.axes[axis].phases);
#pragma unroll
  for (int axis = 2; axis >= 0; --axis) {
    p.position[axis] = take(g.patches(axis)) << g.patch_log2[axis];
    p.taps[axis] =
        live_taps(g.axes[axis], p.phase[axis], p.position[axis], 1 << g.patch_log2[axis]);
  }
  p.batch = static_cast<int>(i);
  return p;
}

// Positions of row `row` of the block.
__device__ inline void row_position(const ImplicitGemm& g, const Place& p, int row,
                                    int (&position)[3]) {
  const int w = g.patch_log2[2], h = g.patch_log2[1];
  position[0] = p.position[0] + (row >> (w + h));
  position[1] = p.position[1] + ((row >> w) & ((1 << h) - 1));
  position[2] = p.position[2] + (row & ((1 << w) - 1));
}

// Reads tiles of the inputs and the weight into shared memory. One thread owns chunk `chunk_` of
// every kRowsPerPass-th row. What depends on the tap is worked out when the tap changes; a step
// moves pointers.
template <class T, class Tile>
class Loader {
 public:
  static constexpr int kRowsOfThread = kRows / kRowsPerPass;
  static constexpr int kColumnsOfThread = (Tile::columns + kRowsPerPass - 1) / kRowsPerPass;
  static constexpr int kStepChannels = kRowBytes / static_cast<int>(sizeof(T));
  static constexpr int kChunk = kChunkBytes / static_cast<int>(sizeof(T));
  // Rows a pass apart are swizzled alike.
  static_assert(kRowsPerPass % (2 * kRowChunks) == 0, "swizzled() looks at the row's lower bits");
  static constexpr int kPassBytes = kRowsPerPass * kRowBytes;

  __device__ Loader(const ImplicitGemm& g, const Place& p, const T* x, const T* skip,
                    const T* weight)
      : g_(g), p_(p), x_(x), skip_(skip) {
    const int row = thread_index() / kRowChunks;
    chunk_ = thread_index() % kRowChunks;
    offset_ = swizzled(row, chunk_);
#pragma unroll
    for (int i = 0; i < kRowsOfThread; ++i) {
      int position[3];
      row_position(g, p, row + i * kRowsPerPass, position);
      bool inside = true;
#pragma unroll
      for (int axis = 0; axis < 3; ++axis) {
        inside = inside && position[axis] < g.axes[axis].positions();
        at_[i][axis] = position[axis] * g.axes[axis].in_step;
      }
      if (!inside) at_[i][2] = kOutside;
    }
    columns_ = 0;
#pragma unroll
    for (int i = 0; i < kColumnsOfThread; ++i)
      if (row + i * kRowsPerPass < Tile::columns &&
          p.columns_first + row + i * kRowsPerPass < g.out_channels)
        columns_ |= 1u << i;
    column_ = weight + (p.columns_first + row) * g.weight_row + chunk_ * kChunk;
    enter();
  }

  __device__ static int steps(const ImplicitGemm& g, const Place& p) {
    const int taps = p.taps[0].count * p.taps[1].count * p.taps[2].count;
    return taps * (steps_of(g.x_channels) + steps_of(g.skip_channels));
  }

  // Starts the copies of the next step into a stage.
  __device__ void load(char* rows, char* columns) {
    if (left_ <= 0) next();
    const bool inside = left_ > chunk_ * kChunk;
#pragma unroll
    for (int i = 0; i < kRowsOfThread; ++i) {
      copy_async<kChunkBytes>(rows + offset_ + i * kPassBytes, from_[i],
                              inside && (valid_ >> i & 1) != 0);
      from_[i] += kStepChannels;
    }
#pragma unroll
    for (int i = 0; i < kColumnsOfThread; ++i)
      if ((i + 1) * kRowsPerPass <= Tile::columns || offset_ < Tile::columns * kRowBytes)
        copy_async<kChunkBytes>(columns + offset_ + i * kPassBytes,
                                weight_ + i * kRowsPerPass * g_.weight_row,
                                inside && (columns_ >> i & 1) != 0);
    weight_ += kStepChannels;
    left_ -= kStepChannels;
  }

 private:
  static constexpr int kOutside = -(1 << 30);

  __device__ static int steps_of(int channels) {
    return (channels + kStepChannels - 1) / kStepChannels;
  }

  // Goes to the other input, or to the next tap.
  __device__ void next() {
    const bool was_skip = skipping_;
    skipping_ = !was_skip && g_.skip_channels > 0;
    if (!skipping_) {
#pragma unroll
      for (int axis = 2; axis >= 0; --axis) {
        if (++tap_[axis] < p_.taps[axis].count) break;
        tap_[axis] = 0;
      }
    }
    enter();
  }

  // Points at the first channels of this tap and input.
  __device__ void enter() {
    left_ = skipping_ ? g_.skip_channels : g_.x_channels;
    const T* const input = (skipping_ ? skip_ : x_) + chunk_ * kChunk;
    int offset[3];
    int64_t tap = 0;
#pragma unroll
    for (int axis = 0; axis < 3; ++axis) {
      const LiveTaps& t = p_.taps[axis];
      offset[axis] = t.first + tap_[axis] * t.step;
      tap = tap * g_.axes[axis].kernel + t.kernel_first + tap_[axis] * t.kernel_step;
    }
    weight_ = column_ + tap * g_.weight_tap + (skipping_ ? g_.x_channels : 0);
    valid_ = 0;
#pragma unroll
    for (int i = 0; i < kRowsOfThread; ++i) {
      bool valid = true;
      int64_t pixel = p_.batch;
#pragma unroll
      for (int axis = 0; axis < 3; ++axis) {
        const int at = at_[i][axis] + offset[axis], size = g_.axes[axis].in;
        valid = valid && static_cast<unsigned>(at) < static_cast<unsigned>(size);
        pixel = pixel * size + at;
      }
      from_[i] = valid ? input + pixel * left_ : input;
      if (valid) valid_ |= 1u << i;
    }
  }

  const ImplicitGemm& g_;
  const Place& p_;
  const T *x_, *skip_;
  const T* column_;           // the thread's first column in the weight
  int chunk_;                 // of a row, the thread's part
  int offset_;                // of it in a tile
  int at_[kRowsOfThread][3];  // input pixel of each row, before the tap's offset
  unsigned columns_;          // bit i: column i exists

  // Where the sum stands.
  int tap_[3] = {};        // counted among the live ones
  bool skipping_ = false;  // in the second input
  int left_;               // channels of this tap and input that are still to come
  unsigned valid_;         // bit i: row i is inside the input under this tap
  const T* from_[kRowsOfThread];
  const T* weight_;
};

// The same for inputs whose channels are not a multiple of a chunk, the frames themselves above
// all: the sum runs over (tap, channel) without gaps, and values are read one by one, or four by
// four.
template <class T, class Tile>
class NarrowLoader {
 public:
  static constexpr int kStepValues = kRowBytes / static_cast<int>(sizeof(T));
  static constexpr int kChunk = kChunkBytes / static_cast<int>(sizeof(T));

  __device__ NarrowLoader(const ImplicitGemm& g, const Place& p, const T* x, const T* skip,
                          const T* weight)
      : g_(g), p_(p), x_(x), skip_(skip), weight_(weight) {
    chunk_ = thread_index() % kRowChunks;
    row_ = thread_index() / kRowChunks;
  }

  __device__ static int steps(const ImplicitGemm& g, const Place& p) {
    return (values(g, p) + kStepValues - 1) / kStepValues;
  }

  __device__ void load(char* rows, char* columns) {
    const int channels = g_.x_channels + g_.skip_channels;
    const bool by_four = sizeof(T) == 2 && g_.skip_channels == 0 && channels % 4 == 0;
    if (by_four)
      load<Four>(rows, columns);
    else
      load<One>(rows, columns);
    first_ += kStepValues;
  }

 private:
  struct alignas(4 * sizeof(T)) Four {
    T values[4];
  };
  struct One {
    T values[1];
  };

  // Reads `Group`s: neighbours in the input, of one tap.
  template <class Group>
  __device__ void load(char* rows, char* columns) {
    constexpr int group = sizeof(Group) / sizeof(T);
    for (int k = 0; k < kChunk; k += group) {
      const Value value = decode(first_ + chunk_ * kChunk + k);
      for (int row = row_; row < kRows; row += kRowsPerPass) {
        const T* const from = source(value, row);
        const Group read = from != nullptr ? *reinterpret_cast<const Group*>(from) : Group{};
        *reinterpret_cast<Group*>(rows + swizzled(row, chunk_) + k * sizeof(T)) = read;
      }
      for (int row = row_; row < Tile::columns; row += kRowsPerPass) {
        const int column = p_.columns_first + row;
        const bool valid = value.live && column < g_.out_channels;
        Group read{};
        for (int i = 0; i < group; ++i)
          if (valid) read.values[i] = weight_[column * g_.weight_row + value.weight + i];
        *reinterpret_cast<Group*>(columns + swizzled(row, chunk_) + k * sizeof(T)) = read;
      }
    }
  }

  // One term of the sum.
  struct Value {
    int offset[3];
    int channel;
    int64_t weight;  // offset in an output channel's weights
    bool live;       // not past the end
  };

  __device__ static int values(const ImplicitGemm& g, const Place& p) {
    return p.taps[0].count * p.taps[1].count * p.taps[2].count * (g.x_channels + g.skip_channels);
  }

  __device__ Value decode(int k) const {
    Value v;
    v.live = k < values(g_, p_);
    const int channels = g_.x_channels + g_.skip_channels;
    int tap = v.live ? k / channels : 0;
    v.channel = v.live ? k % channels : 0;
    int index[3];
#pragma unroll
    for (int axis = 2; axis >= 0; --axis) {
      const int count = p_.taps[axis].count > 0 ? p_.taps[axis].count : 1;
      index[axis] = tap % count;
      tap /= count;
      v.offset[axis] = p_.taps[axis].first + index[axis] * p_.taps[axis].step;
    }
    int64_t number = 0;
#pragma unroll
    for (int axis = 0; axis < 3; ++axis)
      number = number * g_.axes[axis].kernel + p_.taps[axis].kernel_first +
               index[axis] * p_.taps[axis].kernel_step;
    v.weight = number * g_.weight_tap + v.channel;
    return v;
  }

  // Where the value is read for this row; null for a zero.
  __device__ const T* source(const Value& v, int row) const {
    int position[3];
    row_position(g_, p_, row, position);
    bool valid = v.live;
    int64_t pixel = p_.batch;
#pragma unroll
    for (int axis = 0; axis < 3; ++axis) {
      const Axis& a = g_.axes[axis];
      const int at = position[axis] * a.in_step + v.offset[axis];
      valid = valid && position[axis] < a.positions() &&
              static_cast<unsigned>(at) < static_cast<unsigned>(a.in);
      pixel = pixel * a.in + at;
    }
    if (!valid) return nullptr;
    return v.channel < g_.x_channels ? x_ + pixel * g_.x_channels + v.channel
                                     : skip_ + pixel * g_.skip_channels + v.channel - g_.x_channels;
  }

  const ImplicitGemm& g_;
  const Place& p_;
  const T *x_, *skip_, *weight_;
  int chunk_, row_;
  int first_ = 0;  // first value of the next step
};

// d += a b in about float's own precision: a and b are cut into a TF32 value and the rest of it.
__device__ inline void multiply_add_exact(float (&d)[4], const uint32_t (&a)[4],
                                          const uint32_t (&b)[2]) {
  uint32_t a_high[4], a_low[4], b_high[2], b_low[2];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float high = round_to_tf32(float_of(a[i]));
    a_high[i] = bits_of(high);
    a_low[i] = bits_of(float_of(a[i]) - high);
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const float high = round_to_tf32(float_of(b[i]));
    b_high[i] = bits_of(high);
    b_low[i] = bits_of(float_of(b[i]) - high);
  }
  multiply_add<float>(d, a_low, b_high);
  multiply_add<float>(d, a_high, b_low);
  multiply_add<float>(d, a_high, b_high);
}

// A warp's part of the product.
template <class T, class Tile, bool Exact>
class Product {
 public:
  static constexpr int kM = Tile::warp_rows / 16, kN = Tile::warp_columns / 8;

  __device__ Product() {
    const int warp = thread_index() / kWarp;
    first_row_ = warp / Tile::warps_n * Tile::warp_rows;
    first_column_ = warp % Tile::warps_n * Tile::warp_columns;
  }

  // Adds the product of one stage.
  __device__ void add(const char* rows, const char* columns) {
    const int lane = thread_index() % kWarp;
#pragma unroll
    for (int slice = 0; slice < 2; ++slice) {
      uint32_t a[kM][4];
#pragma unroll
      for (int m = 0; m < kM; ++m) {
        load_matrices(a[m],
                      rows + swizzled(first_row_ + m * 16 + lane % 16, slice * 2 + lane / 16));
        round(a[m]);
      }
#pragma unroll
      for (int n = 0; n < kN; n += 2) {
        uint32_t both[4];
        load_matrices(both, columns + swizzled(first_column_ + n * 8 + lane % 8 + lane / 16 * 8,
                                               slice * 2 + lane / 8 % 2));
        round(both);
        const uint32_t b[2][2] = {{both[0], both[1]}, {both[2], both[3]}};
#pragma unroll
        for (int m = 0; m < kM; ++m)
#pragma unroll
          for (int i = 0; i < 2; ++i)
            if constexpr (Exact)
              multiply_add_exact(sums[m][n + i], a[m], b[i]);
            else
              multiply_add<T>(sums[m][n + i], a[m], b[i]);
      }
    }
  }

  // Of the block, for sums[m][.][2 * half + .] and sums[.][n][0].
  __device__ int row(int m, int half) const {
    return first_row_ + m * 16 + half * 8 + thread_index() % kWarp / 4;
  }
  __device__ int column(int n) const { return first_column_ + n * 8 + thread_index() % 4 * 2; }
  __device__ int first_column() const { return first_column_; }
  __device__ int row_warp() const { return first_row_ / Tile::warp_rows; }

  float sums[kM][kN][4] = {};

 private:
  // To the nearest TF32 value; the tensor cores would cut off.
  __device__ static void round(uint32_t (&v)[4]) {
    if constexpr (sizeof(T) == 4 && !Exact)
#pragma unroll
      for (int i = 0; i < 4; ++i) v[i] = bits_of(round_to_tf32(float_of(v[i])));
  }

  int first_row_, first_column_;
};

// The output pixel of row `row`, or -1 for a row past the edge.
__device__ inline int64_t out_pixel(const ImplicitGemm& g, const Place& p, int row) {
  int position[3];
  row_position(g, p, row, position);
  int64_t pixel = p.batch;
  bool inside = true;
#pragma unroll
  for (int axis = 0; axis < 3; ++axis) {
    const int at = position[axis] * g.axes[axis].phases + p.phase[axis];
    inside = inside && position[axis] < g.axes[axis].positions() && at < g.axes[axis].out;
    pixel = pixel * g.axes[axis].out + at;
  }
  return inside ? pixel : -1;
}

// Rows of the block that are not past an edge.
__device__ inline int rows_inside(const ImplicitGemm& g, const Place& p) {
  int count = 1;
#pragma unroll
  for (int axis = 0; axis < 3; ++axis) {
    const Axis& a = g.axes[axis];
    const int positions = (a.out - p.phase[axis] + a.phases - 1) / a.phases;
    const int size = 1 << g.patch_log2[axis], left = positions - p.position[axis];
    count *= left < 0 ? 0 : left < size ? left : size;
  }
  return count;
}

// Bias, ReLU and residual, and the value as it will be stored.
template <class T, class Tile, bool Exact>
__device__ void finish(const ImplicitGemm& g, const Place& p, const Epilogue& e,
                       Product<T, Tile, Exact>* product) {
#pragma unroll
  for (int m = 0; m < product->kM; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t pixel = out_pixel(g, p, product->row(m, half));
#pragma unroll
      for (int n = 0; n < product->kN; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int column = p.columns_first + product->column(n) + i;
          const bool valid = column < g.out_channels;
          float& v = product->sums[m][n][2 * half + i];
          if (e.bias != nullptr && valid) v += e.bias[column];
          if (g.relu) v = v > 0 ? v : 0;
          if (e.residual != nullptr && valid && pixel >= 0)
            v += widen(static_cast<const T*>(e.residual)[pixel * g.out_channels + column]);
          v = widen(narrow<T>(v));
        }
    }
}

// Sums over the rows of a block of f(m, half, n, i), for every column; `shared` has room for
// warps_m * columns floats. Every thread gets the sums of its own columns.
template <class T, class Tile, bool Exact, class F>
__device__ void column_sums(const Product<T, Tile, Exact>& product, float* shared,
                            float (&sums)[Product<T, Tile, Exact>::kN][2], const F& f) {
#pragma unroll
  for (int n = 0; n < product.kN; ++n)
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float sum = 0;
#pragma unroll
      for (int m = 0; m < product.kM; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) sum += f(m, half, n, i);
#pragma unroll
      for (int mask = 4; mask < kWarp; mask *= 2) sum += shuffle_xor(sum, mask);
      if (thread_index() % kWarp < 4)
        shared[product.row_warp() * Tile::columns + product.column(n) + i] = sum;
    }
  sync_threads();
#pragma unroll
  for (int n = 0; n < product.kN; ++n)
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      sums[n][i] = 0;
#pragma unroll
      for (int warp = 0; warp < Tile::warps_m; ++warp)
        sums[n][i] += shared[warp * Tile::columns + product.column(n) + i];
    }
  sync_threads();
}

// Count, mean and squared deviations of the values as stored, over the rows of the block.
template <class T, class Tile, bool Exact>
__device__ void statistics(const ImplicitGemm& g, const Place& p, const Epilogue& e,
                           const Product<T, Tile, Exact>& product, float* shared) {
  const int count = rows_inside(g, p);
  bool inside[Product<T, Tile, Exact>::kM][2];
#pragma unroll
  for (int m = 0; m < product.kM; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half)
      inside[m][half] = out_pixel(g, p, product.row(m, half)) >= 0;
  float mean[Product<T, Tile, Exact>::kN][2], deviation[Product<T, Tile, Exact>::kN][2];
  column_sums<T, Tile, Exact>(product, shared, mean, [&](int m, int half, int n, int i) {
    return inside[m][half] ? product.sums[m][n][2 * half + i] : 0.0f;
  });
  const float per_row = count > 0 ? 1.0f / static_cast<float>(count) : 0.0f;
#pragma unroll
  for (int n = 0; n < product.kN; ++n)
#pragma unroll
    for (int i = 0; i < 2; ++i) mean[n][i] *= per_row;
  column_sums<T, Tile, Exact>(product, shared, deviation, [&](int m, int half, int n, int i) {
    const float d = inside[m][half] ? product.sums[m][n][2 * half + i] - mean[n][i] : 0.0f;
    return d * d;
  });
  if (p.columns_first == 0 && thread_index() == 0)
    e.counts[p.row_block] = static_cast<float>(count);
  if (product.row_warp() != 0 || thread_index() % kWarp >= 4) return;
#pragma unroll
  for (int n = 0; n < product.kN; ++n)
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int column = p.columns_first + product.column(n) + i;
      if (column >= g.out_channels) continue;
      e.means[p.row_block * g.out_channels + column] = mean[n][i];
      e.deviations[p.row_block * g.out_channels + column] = deviation[n][i];
    }
}

struct alignas(16) Words {
  uint32_t words[4];
};

// Four lanes hold a 4 x 4 matrix, a row each; afterwards, a column each.
__device__ inline void transpose(uint32_t (&v)[4]) {
  const int t = thread_index() % 4;
#pragma unroll
  for (int bit = 1; bit <= 2; bit *= 2)
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (j & bit) continue;
      const bool upper = (t & bit) != 0;
      const uint32_t got = shuffle_xor(upper ? v[j] : v[j | bit], bit);
      if (upper)
        v[j] = got;
      else
        v[j | bit] = got;
    }
}

template <class T, class Tile, bool Exact>
__device__ void store(const ImplicitGemm& g, const Place& p, const Product<T, Tile, Exact>& product,
                      T* out) {
#pragma unroll
  for (int m = 0; m < product.kM; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t pixel = out_pixel(g, p, product.row(m, half));
      T* const row = out + (pixel >= 0 ? pixel * g.out_channels : 0);
      if constexpr (sizeof(T) == 2 && product.kN % 4 == 0) {
        if (g.out_channels % 8 == 0) {
        // A lane trades two columns of four fragments for eight columns of one: 16 bytes.
#pragma unroll
          for (int n = 0; n < product.kN; n += 4) {
            Words w;
#pragma unroll
            for (int j = 0; j < 4; ++j)
              w.words[j] =
                  pack<T>(product.sums[m][n + j][2 * half], product.sums[m][n + j][2 * half + 1]);
            transpose(w.words);
            const int column =
                p.columns_first + product.first_column() + (n + thread_index() % 4) * 8;
            if (pixel >= 0 && column < g.out_channels) *reinterpret_cast<Words*>(row + column) = w;
          }
          continue;
        }
      }
#pragma unroll
      for (int n = 0; n < product.kN; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int column = p.columns_first + product.column(n) + i;
          if (pixel >= 0 && column < g.out_channels)
            row[column] = narrow<T>(product.sums[m][n][2 * half + i]);
        }
    }
}

// out = act(sum over live taps and channels of input * weight + bias) + residual. One block
// computes 128 positions, a patch of one phase, by Tile::columns output channels; a step of the
// pipeline brings 64 bytes of channels of each position (through one tap) and of each output
// channel's weights.
template <class T, int Columns, bool Narrow, bool Exact>
__global__ __launch_bounds__(
    kThreads,
    Tile<Columns>::blocks_per_multiprocessor) void implicit_gemm_kernel(const ImplicitGemm g,
                                                                        const T* x, const T* skip,
                                                                        const T* weight,
                                                                        const Epilogue epilogue,
                                                                        T* out) {
  using Tile = Tile<Columns>;
  using Source = std::conditional_t<Narrow, NarrowLoader<T, Tile>, Loader<T, Tile>>;
  char* const shared = shared_memory();
  // In shared memory, since registers are what this kernel is short of.
  Place& p = *reinterpret_cast<Place*>(shared + Tile::stages * Tile::stage_bytes);
  if (thread_index() == 0) p = find_place<Tile>(g);
  sync_threads();
  Source source(g, p, x, skip, weight);
  Product<T, Tile, Exact> product;
  constexpr int ahead = Tile::stages - 1;  // stages that are loaded before they are needed
  const auto load = [&](int stage) {
    char* const tile = shared + stage * Tile::stage_bytes;
    source.load(tile, tile + kRows * kRowBytes);
  };
  const int steps = Source::steps(g, p);
#pragma unroll
  for (int step = 0; step < ahead; ++step) {
    if (step < steps) load(step);
    commit_copies();
  }
  int stage = 0, loading = ahead;
  for (int step = 0; step < steps; ++step) {
    await_copies<ahead - 1>();
    sync_threads();  // the copies of all threads are here, and nobody reads the stage loaded next
    if (step + ahead < steps) load(loading);
    commit_copies();
    const char* const tile = shared + stage * Tile::stage_bytes;
    product.add(tile, tile + kRows * kRowBytes);
    stage = stage + 1 == Tile::stages ? 0 : stage + 1;
    loading = loading + 1 == Tile::stages ? 0 : loading + 1;
  }
  await_copies<0>();
  finish(g, p, epilogue, &product);
  if (epilogue.counts != nullptr) {
    sync_threads();
    statistics(g, p, epilogue, product, reinterpret_cast<float*>(shared));
  }
  store(g, p, product, out);
}

template <class T, int Columns, bool Narrow, bool Exact>
const char* launch_tile(const ImplicitGemm& g, const void* x, const void* skip, const void* weight,
                        const Epilogue& epilogue, void* out, void* stream) {
  const int64_t blocks = g.row_blocks() * ((g.out_channels + Columns - 1) / Columns);
  if (blocks > INT32_MAX) return "the output needs more blocks than a grid can have";
  return launch(
      implicit_gemm_kernel<T, Columns, Narrow, Exact>, {static_cast<int>(blocks), 1, 1}, kThreads,
      Tile<Columns>::stages * Tile<Columns>::stage_bytes + static_cast<int>(sizeof(Place)), stream,
      g, static_cast<const T*>(x), static_cast<const T*>(skip), static_cast<const T*>(weight),
      epilogue, static_cast<T*>(out));
}

template <class T, bool Exact>
const char* launch_type(const ImplicitGemm& g, const void* x, const void* skip, const void* weight,
                        const Epilogue& epilogue, void* out, void* stream) {
  constexpr int chunk = kChunkBytes / static_cast<int>(sizeof(T));
  const bool narrow = g.x_channels % chunk != 0 || g.skip_channels % chunk != 0 ||
                      g.weight_row % chunk != 0 || g.weight_tap % chunk != 0;
  const auto with = [&](auto* launcher) {
    return launcher(g, x, skip, weight, epilogue, out, stream);
  };
  if (narrow)
    return g.out_channels > 16 ? with(launch_tile<T, 64, true, Exact>)
                               : with(launch_tile<T, 16, true, Exact>);
  if (g.out_channels > 64) return with(launch_tile<T, 128, false, Exact>);
  if (g.out_channels > 32) return with(launch_tile<T, 64, false, Exact>);
  if (g.out_channels > 16) return with(launch_tile<T, 32, false, Exact>);
  return with(launch_tile<T, 16, false, Exact>);
}

}  // namespace implicit_gemm

}  // namespace vinpaint
