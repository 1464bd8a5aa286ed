// SPDX-License-Identifier: Apache-2.0
// The kernels behind weight_gradient.h.
//
// The sum runs over positions, in the order (n, f, h, w), and only over the box of positions at
// which a block's taps read inside `gathered`: padding is never multiplied where a block has a
// single tap. Columns are (tap, channel) in one row, so that a block is full also if there are
// few channels; a run of neighbouring channels that one copy brings, a unit, lies in one tap.
#include "../weight_gradient.h"

#include <utility>

#include "device.h"

namespace vinpaint {

namespace {

constexpr int kWarp = 32;
constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarp;
constexpr int kColumns = kWeightGradientColumns;
constexpr int kStages = 4;  // of the ring of tiles in shared memory

// One position of the sum, as all copies of its values see it.
struct alignas(16) Place {
  int64_t row;       // offset of its values in `rows`
  int64_t gathered;  // offset in `gathered` of what a tap at offset 0 reads; may lie outside
  int f, h, w;       // the pixel there; f is kOutside behind the end of the sum
};

constexpr int kOutside = INT32_MIN / 2;  // no tap leads inside from here

// Units as long as the channel counts and addresses allow.
struct Units {
  int rows, columns;  // values: Block::kWide, 4 or 1
};

// What a block of one kernel is made of.
template <class T, int Rows, bool Aligned, bool Exact>
struct Block {
  static constexpr int kRows = Rows;
  static constexpr bool kAligned = Aligned;  // all units are 16 bytes
  static constexpr bool kExact = Exact;
  static constexpr bool kShort = sizeof(T) == 2;
  static constexpr int kWide = 16 / static_cast<int>(sizeof(T));   // values in 16 bytes
  static constexpr int kDepth = 64 / static_cast<int>(sizeof(T));  // positions a stage
  static constexpr int kStep = 2 * kWide;                          // positions a multiply_add
  // A warp works out kDown x kAcross products of 16 rows and 8 columns.
  static constexpr int kWarpRows = Rows == 128 ? 64 : 32;
  static constexpr int kWarpsDown = Rows / kWarpRows;
  static constexpr int kWarpColumns = kColumns * kWarpsDown / kWarps;
  static constexpr int kDown = kWarpRows / 16, kAcross = kWarpColumns / 8;
  static constexpr int kStage = kDepth * (Rows + kColumns);  // values
  static constexpr int kStagesDecoded = kThreads / kDepth;   // a thread decodes a position
  static constexpr int kPlaces = 2 * kThreads;
  static constexpr int kSharedBytes =
      kStages * kStage * static_cast<int>(sizeof(T)) + kPlaces * static_cast<int>(sizeof(Place));
  // On a multiprocessor, so that nothing spills.
  static constexpr int kBlocksAtOnce = Rows == 32 ? 4 : Rows == 64 && Aligned && !kExact ? 3 : 2;
  static_assert(kStagesDecoded >= kStages);
  static_assert(!Exact || !kShort);

  // Where value `i` of position k lies in a tile of Width values a position. Eight positions of
  // one 16-byte chunk (ldmatrix), or four of two (float), lie in different banks.
  template <int Width>
  static __device__ int swizzled(int k, int i) {
    constexpr int chunks = Width / kWide;
    const int turn = !kShort ? k % 4 * 2 : chunks >= 8 ? k % 8 : k / 2 % 4;
    return k * Width + (i / kWide ^ turn) * kWide + i % kWide;
  }
};

// The place of position `index` of the box, in the order (n, f, h, w).
__device__ inline Place place_of(const WeightGradient& g, const WeightGradientBox& box, int index) {
  const auto i = static_cast<unsigned>(index);
  const unsigned row = i / box.size(2), frame = row / box.size(1), n = frame / box.size(0);
  const int p[3] = {box.axes[0].begin + static_cast<int>(frame % box.size(0)),
                    box.axes[1].begin + static_cast<int>(row % box.size(1)),
                    box.axes[2].begin + static_cast<int>(i % box.size(2))};
  Place place;
  int q[3];
  place.row = place.gathered = n;
  for (int axis = 0; axis < 3; ++axis) {
    const WeightGradientAxis& a = g.axes[axis];
    q[axis] = a.in_step * p[axis] + a.first;
    place.row = place.row * a.positions + p[axis];
    place.gathered = place.gathered * a.gathered + q[axis];
  }
  place.row *= g.row_channels;
  place.gathered *= g.col_channels;
  place.f = q[0];
  place.h = q[1];
  place.w = q[2];
  return place;
}

// Brings Unit values to shared memory, or zeros. A single 16-bit value is too short for an
// asynchronous copy.
template <int Unit, class T>
__device__ inline void bring(T* to, const T* from, bool valid) {
  constexpr int bytes = Unit * static_cast<int>(sizeof(T));
  if constexpr (bytes >= 4)
    device::copy_async<bytes>(to, from, valid);
  else
    *to = valid ? *from : T{};
}

// This thread's share of copying tiles of Width values a position: one unit of the position `first`
// and of others behind it, at equal distances.
template <int Width>
struct Share {
  int first;
  int value;  // the unit's first one in the tile

  __device__ explicit Share(int unit)
      : first(device::thread_index() / (Width / unit)),
        value(device::thread_index() % (Width / unit) * unit) {}

  // f(position) for each.
  template <class B, int Unit, class F>
  static __device__ void positions(int first, const F& f) {
    constexpr int step = kThreads * Unit / Width, count = B::kDepth / step;
    [[maybe_unused]] constexpr int together =
        B::kAligned ? count : 8;  // bounds the registers for addresses
#pragma unroll(together)
    for (int i = 0; i < count; ++i) f(first + i * step);
  }
};

// Copies the rows' values.
template <class B>
struct RowCopier : Share<B::kRows> {
  int row;
  bool live;  // else these rows are neither written nor stored

  __device__ RowCopier(const WeightGradient& g, int unit, int first_row)
      : Share<B::kRows>(unit), row(first_row + this->value), live(row < g.row_channels) {}

  template <int Unit, class T>
  __device__ void copy(const Place* places, const T* rows, T* tile) const {
    if (!live) return;
    this->template positions<B, Unit>(this->first, [&](int k) {
      const bool valid = places[k].f != kOutside;
      bring<Unit>(tile + B::template swizzled<B::kRows>(k, this->value),
                  rows + (valid ? places[k].row + row : 0), valid);
    });
  }
};

// Copies the columns' values.
template <class B>
struct ColumnCopier : Share<kColumns> {
  int f, h, w;     // offset of the unit's tap, in pixels
  int64_t offset;  // and of its values, in `gathered`
  bool live;       // else these columns are neither written nor stored

  __device__ ColumnCopier(const WeightGradient& g, int unit, int first_column)
      : Share<kColumns>(unit), live(first_column + value < g.columns()) {
    const int column = first_column + value;
    const WeightGradientTap tap = g.tap(column);
    f = tap.axes[0] * g.axes[0].step;
    h = tap.axes[1] * g.axes[1].step;
    w = tap.axes[2] * g.axes[2].step;
    offset = ((int64_t{f} * g.axes[1].gathered + h) * g.axes[2].gathered + w) * g.col_channels +
             column % g.col_channels;
  }

  template <int Unit, class T>
  __device__ void copy(const WeightGradient& g, const Place* places, const T* gathered,
                       T* tile) const {
    if (!live) return;
    const auto inside = [](int at, const WeightGradientAxis& a) {
      return static_cast<unsigned>(at) < static_cast<unsigned>(a.gathered);
    };
    positions<B, Unit>(first, [&](int k) {
      const Place& place = places[k];
      const bool valid = inside(place.f + f, g.axes[0]) & inside(place.h + h, g.axes[1]) &
                         inside(place.w + w, g.axes[2]);
      bring<Unit>(tile + B::template swizzled<kColumns>(k, value),
                  gathered + (valid ? place.gathered + offset : 0), valid);
    });
  }
};

// f(Unit) for one of the lengths that a unit may have.
template <class B, class F>
__device__ inline void with_unit(int unit, const F& f) {
  if constexpr (!B::kAligned) {
    if (unit == 1) return f(std::integral_constant<int, 1>());
    if (unit == 4) return f(std::integral_constant<int, 4>());
  }
  f(std::integral_constant<int, B::kWide>());
}

template <class B>
using Sums = float[B::kDown][B::kAcross][4];

// sums += rows^T columns over one stage, 16-bit types.
template <class B, class T>
__device__ inline void multiply_short(Sums<B>& sums, const T* rows, const T* columns, int row,
                                      int column) {
  using namespace device;
  const int lane = thread_index() % kWarp;
#pragma unroll
  for (int step = 0; step < B::kDepth; step += B::kStep) {
    // Matrices lie position by position; transposed they are the fragments of multiply_add.
    uint32_t a[B::kDown][4];
#pragma unroll
    for (int m = 0; m < B::kDown; ++m)
      load_matrices_transposed(
          a[m], rows + B::template swizzled<B::kRows>(step + lane % 8 + lane / 16 * 8,
                                                      row + m * 16 + lane / 8 % 2 * 8));
#pragma unroll
    for (int n = 0; n < B::kAcross; n += 2) {
      uint32_t b[4];
      load_matrices_transposed(b, columns + B::template swizzled<kColumns>(
                                                step + lane % 16, column + n * 8 + lane / 16 * 8));
      const uint32_t left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
#pragma unroll
      for (int m = 0; m < B::kDown; ++m) {
        multiply_add<T>(sums[m][n], a[m], left);
        multiply_add<T>(sums[m][n + 1], a[m], right);
      }
    }
  }
}

// Values as TF32 holds them, and what that leaves over.
template <int N, bool Exact>
struct Parts {
  uint32_t high[N], low[Exact ? N : 1];
  __device__ void set(int i, float v) {
    const float nearest = device::round_to_tf32(v);
    high[i] = device::bits_of(nearest);
    if constexpr (Exact) low[i] = device::bits_of(device::round_to_tf32(v - nearest));
  }
};

// sums += rows^T columns over one stage, float.
template <class B>
__device__ inline void multiply_float(Sums<B>& sums, const float* rows, const float* columns,
                                      int row, int column) {
  using namespace device;
  const int lane = thread_index() % kWarp, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int step = 0; step < B::kDepth; step += B::kStep) {
    Parts<4, B::kExact> a[B::kDown];
#pragma unroll
    for (int m = 0; m < B::kDown; ++m)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        a[m].set(i, rows[B::template swizzled<B::kRows>(step + t + i / 2 * 4,
                                                        row + m * 16 + i % 2 * 8 + g)]);
#pragma unroll
    for (int n = 0; n < B::kAcross; ++n) {
      Parts<2, B::kExact> b;
#pragma unroll
      for (int i = 0; i < 2; ++i)
        b.set(i, columns[B::template swizzled<kColumns>(step + t + i * 4, column + n * 8 + g)]);
#pragma unroll
      for (int m = 0; m < B::kDown; ++m) {
        if constexpr (B::kExact) {
          multiply_add<float>(sums[m][n], a[m].low, b.high);
          multiply_add<float>(sums[m][n], a[m].high, b.low);
        }
        multiply_add<float>(sums[m][n], a[m].high, b.high);
      }
    }
  }
}

template <class B>
constexpr int row_blocks(const WeightGradient& g) {
  return (g.row_channels + B::kRows - 1) / B::kRows;
}

// One block works out Rows x kColumns values of dW over one part of their positions, a warp a
// rectangle of them; positions pass through shared memory in stages. Writes dW, or the partial sum
// workspace[split][row][column] if there are splits.
template <class B, class T>
__global__ void __launch_bounds__(kThreads, B::kBlocksAtOnce)
    weight_gradient_kernel(WeightGradient g, Units units, const T* rows, const T* gathered,
                           float* workspace, T* out) {
  using namespace device;
  T* const ring = reinterpret_cast<T*>(shared_memory());
  Place* const places = reinterpret_cast<Place*>(ring + kStages * B::kStage);
  const int thread = thread_index(), lane = thread % kWarp, warp = thread / kWarp;
  const int split = block_index().y;
  const int first_row = block_index().x % row_blocks<B>(g) * B::kRows;
  const int column_block = block_index().x / row_blocks<B>(g);
  const int first_column = column_block * kColumns, columns = static_cast<int>(g.columns());
  const WeightGradientBox box = g.box(column_block);
  const int depth = g.batch * box.volume();
  const int64_t part = (int64_t{depth} + int64_t{g.splits} * B::kDepth - 1) /
                       (int64_t{g.splits} * B::kDepth) * B::kDepth;
  const int64_t begin = split * part, end = begin + part < depth ? begin + part : depth;
  const int stages = begin < end ? static_cast<int>((end - begin + B::kDepth - 1) / B::kDepth) : 0;

  // Positions are decoded kThreads at a time, into one half of `places`.
  const auto decode = [&](int batch) {
    const int64_t index = begin + int64_t{batch} * kThreads + thread;
    Place& place = places[batch % 2 * kThreads + thread];
    if (index < end)
      place = place_of(g, box, static_cast<int>(index));
    else
      place.f = kOutside;
  };
  const RowCopier<B> row_copier(g, units.rows, first_row);
  const ColumnCopier<B> column_copier(g, units.columns, first_column);
  const auto bring_stage = [&](int stage) {
    T* const tile = ring + stage % kStages * B::kStage;
    const Place* const at = places + stage * B::kDepth % B::kPlaces;
    with_unit<B>(units.rows, [&](auto unit) {
      row_copier.template copy<decltype(unit)::value>(at, rows, tile);
    });
    with_unit<B>(units.columns, [&](auto unit) {
      column_copier.template copy<decltype(unit)::value>(g, at, gathered,
                                                         tile + B::kDepth * B::kRows);
    });
  };

  const int row = warp % B::kWarpsDown * B::kWarpRows;
  const int column = warp / B::kWarpsDown * B::kWarpColumns;
  Sums<B> sums = {};
  decode(0);
  sync_threads();
  for (int stage = 0; stage < kStages - 1; ++stage) {
    if (stage < stages) bring_stage(stage);
    commit_copies();
  }
  for (int stage = 0; stage < stages; ++stage) {
    await_copies<kStages - 2>();
    sync_threads();
    if (stage % B::kStagesDecoded == 0) decode(stage / B::kStagesDecoded + 1);
    if (stage + kStages - 1 < stages) bring_stage(stage + kStages - 1);
    commit_copies();
    const T* const tile = ring + stage % kStages * B::kStage;
    if constexpr (B::kShort) {
      multiply_short<B>(sums, tile, tile + B::kDepth * B::kRows, row, column);
    } else if constexpr (!B::kExact) {
      multiply_float<B>(sums, tile, tile + B::kDepth * B::kRows, row, column);
    } else {
      // Tensor cores cut off what does not fit into a sum, so theirs are kept short.
      Sums<B> few = {};
      multiply_float<B>(few, tile, tile + B::kDepth * B::kRows, row, column);
#pragma unroll
      for (int m = 0; m < B::kDown; ++m)
#pragma unroll
        for (int n = 0; n < B::kAcross; ++n)
#pragma unroll
          for (int i = 0; i < 4; ++i) sums[m][n][i] += few[m][n][i];
    }
  }
  await_copies<0>();

#pragma unroll
  for (int n = 0; n < B::kAcross; ++n)
#pragma unroll
    for (int side = 0; side < 2; ++side) {
      const int c = first_column + column + n * 8 + lane % 4 * 2 + side;
      if (c >= columns) continue;
      const int64_t to = c / g.col_channels * g.out_tap + c % g.col_channels * g.out_col;
#pragma unroll
      for (int m = 0; m < B::kDown; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int r = first_row + row + m * 16 + half * 8 + lane / 4;
          if (r >= g.row_channels) continue;
          const float sum = sums[m][n][half * 2 + side];
          if (g.splits > 1)
            workspace[(int64_t{split} * g.row_channels + r) * columns + c] = sum;
          else
            out[r * g.out_row + to] = narrow<T>(sum);
        }
    }
}

// One thread adds up every `groups`-th partial sum of one value of dW; the first of `groups`
// threads then adds up those, in order, and writes the value.
template <class T>
__global__ void __launch_bounds__(kThreads)
    add_splits_kernel(WeightGradient g, int groups, const float* workspace, T* out) {
  using namespace device;
  float* const shared = reinterpret_cast<float*>(shared_memory());
  const int thread = thread_index(), values = kThreads / groups;
  const int64_t count = g.row_channels * g.columns();
  const int64_t value = int64_t{block_index().x} * values + thread % values;
  float sum = 0;
  if (value < count)
    for (int split = thread / values; split < g.splits; split += groups)
      sum += workspace[split * count + value];
  shared[thread] = sum;
  sync_threads();
  if (thread >= values || value >= count) return;
  for (int group = 1; group < groups; ++group) sum += shared[group * values + thread];
  const int64_t r = value / g.columns();
  const int c = static_cast<int>(value % g.columns());
  out[r * g.out_row + c / g.col_channels * g.out_tap + c % g.col_channels * g.out_col] =
      narrow<T>(sum);
}

template <class B, class T>
const char* start(const WeightGradient& g, Units units, const T* rows, const T* gathered,
                  float* workspace, T* out, void* stream) {
  const int64_t blocks = row_blocks<B>(g) * g.column_blocks();
  return launch(weight_gradient_kernel<B, T>, {static_cast<int>(blocks), g.splits, 1}, kThreads,
                B::kSharedBytes, stream, g, units, rows, gathered, workspace, out);
}

// The longest unit that divides the channels of a tensor and its address.
template <class T>
int unit_of(int channels, const T* tensor) {
  for (const int unit : {16 / static_cast<int>(sizeof(T)), 4})
    if (channels % unit == 0 && reinterpret_cast<uintptr_t>(tensor) % (unit * sizeof(T)) == 0)
      return unit;
  return 1;
}

template <class T>
const char* launch_stored(const WeightGradient& g, const T* rows, const T* gathered,
                          float* workspace, T* out, void* stream) {
  constexpr int wide = 16 / static_cast<int>(sizeof(T));
  const Units units{unit_of(g.row_channels, rows), unit_of(g.col_channels, gathered)};
  const bool aligned = units.rows == wide && units.columns == wide;
  const auto start_block = [&](auto block) {
    return start<decltype(block)>(g, units, rows, gathered, workspace, out, stream);
  };
  const char* error = nullptr;
  if (sizeof(T) == 4 && g.exact) {
    constexpr bool exact = sizeof(T) == 4;
    error = aligned ? start_block(Block<T, 64, true, exact>())
                    : start_block(Block<T, 64, false, exact>());
  } else if (aligned) {
    error = g.block_rows() == 128  ? start_block(Block<T, 128, true, false>())
            : g.block_rows() == 64 ? start_block(Block<T, 64, true, false>())
                                   : start_block(Block<T, 32, true, false>());
  } else {
    error = g.block_rows() == 32 ? start_block(Block<T, 32, false, false>())
                                 : start_block(Block<T, 64, false, false>());
  }
  if (error || g.splits == 1) return error;
  const int groups = g.splits >= 64 ? 8 : g.splits >= 16 ? 4 : 1, values = kThreads / groups;
  const int64_t blocks = (g.row_channels * g.columns() + values - 1) / values;
  return launch(add_splits_kernel<T>, {static_cast<int>(blocks), 1, 1}, kThreads,
                kThreads * static_cast<int>(sizeof(float)), stream, g, groups, workspace, out);
}

}  // namespace

const char* launch_weight_gradient(const WeightGradient& g, Storage storage, const void* rows,
                                   const void* gathered, float* workspace, void* out,
                                   void* stream) {
  if (g.batch * g.positions() > INT32_MAX || g.columns() > INT32_MAX - kColumns)
    return "weight gradient: more positions or weights than 32 bits count";
  if (g.exchanged) std::swap(rows, gathered);
  return with_storage(storage, [&](auto type) {
    using T = decltype(type);
    return launch_stored(g, static_cast<const T*>(rows), static_cast<const T*>(gathered), workspace,
                         static_cast<T*>(out), stream);
  });
}

}  // namespace vinpaint
