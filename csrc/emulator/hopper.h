// SPDX-License-Identifier: Apache-2.0
// The host versions of the instructions in cuda/hopper.h, where each is described.
//
// What is asynchronous happens at a random time in the interval that the PTX ISA leaves: a copy
// between its start and the end of its barrier's phase, a product between its start and its await.
// Until then the registers of a product hold a NaN of their own. Descriptors are decoded bit by bit
// and tiles addressed as the hardware does it.
#pragma once

#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <set>
#include <vector>

#include "emulator.h"

namespace vinpaint {

// What a tensor map says; the fields of cuTensorMapEncodeTiled, with an element of 16 bits.
struct TensorMap {
  const char* base;
  int rank;
  int64_t sizes[5];    // in elements
  int64_t strides[5];  // in bytes
  int box[5];          // from the first element copied to past the last
  int steps[5];        // from one element copied to the next
};

namespace device {

namespace detail {

constexpr int kElement = 2;                 // bytes
constexpr int kGroupWarps = 4;              // warps of a warpgroup
constexpr uint32_t kSharedBase = 1024;      // address of the block's shared memory in its window
constexpr int64_t kRegisters = 65536;       // of a multiprocessor
constexpr uint32_t kUnderWay = 0x7fc0dead;  // in the registers of a product not yet awaited
constexpr uint64_t kUnusedByBarrier = 1ull << 63;

// The 64 bits of a barrier.
struct BarrierBits {
  int phase;     // modulo 2
  int arrivals;  // that end a phase
  int pending;   // of these, those still to come
  int bytes;     // expected and not yet copied
};

inline BarrierBits read_barrier(const uint64_t* barrier) {
  if (!emulator::is_shared(barrier, 8) || reinterpret_cast<uintptr_t>(barrier) % 8)
    emulator::fail("a barrier outside shared memory or misaligned");
  const uint64_t v = *barrier;
  if (v & kUnusedByBarrier) emulator::fail("a barrier that was not initialised");
  return {static_cast<int>(v & 1), static_cast<int>(v >> 1 & 0xfffff),
          static_cast<int>(v >> 21 & 0xfffff), static_cast<int>(v >> 41 & 0x3fffff) - (1 << 21)};
}

// Ends the phase if nothing is left to wait for.
inline void write_barrier(uint64_t* barrier, BarrierBits b) {
  if (b.pending < 0) emulator::fail("more arrivals at a barrier than its phase takes");
  if (b.bytes >= 1 << 20 || b.bytes <= -(1 << 20))
    emulator::fail("more bytes under way to a barrier than it counts");
  if (b.pending == 0 && b.bytes == 0) {
    b.phase ^= 1;
    b.pending = b.arrivals;
  }
  *barrier = static_cast<uint64_t>(b.phase) | static_cast<uint64_t>(b.arrivals) << 1 |
             static_cast<uint64_t>(b.pending) << 21 |
             static_cast<uint64_t>(b.bytes + (1 << 21)) << 41;
}

// The registers of a warp that hold the sums of products under way.
struct Sums {
  float* lanes[emulator::kWarp];
  std::vector<float> values;  // what they will hold: 16 rows
  int columns;
  int under_way;  // products
};

struct WarpProduct {
  Sums* sums;
  uint64_t a, b;
  bool done;
  void (*execute)(int warp, WarpProduct*);
};

struct WarpState {
  std::map<float*, Sums> sums;  // by lane 0's
  std::vector<WarpProduct> open;
  std::deque<std::vector<WarpProduct>> groups;
  bool fenced = false;  // no access to registers since begin_products
  size_t started = 0;   // products
  int registers = 0;    // of a thread; 0: as at the start
};

struct BlockState {
  std::map<int, WarpState> warps;
  // The operands of all products of a warpgroup: its warps must start the same ones.
  std::map<int, std::vector<std::pair<uint64_t, uint64_t>>> operands;
  std::set<const uint64_t*> unfenced;  // barriers
};

inline BlockState& state() { return emulator::block_state<BlockState>(); }
inline int warp() { return emulator::thread_index() / emulator::kWarp; }
inline WarpState& warp_state() { return state().warps[warp()]; }

// Where the 16 bytes that hold address `a` of a tile are in a swizzled one.
inline uint32_t swizzled(uint32_t a) { return a ^ (a >> 7 & 7) << 4; }

inline char* shared_pointer(uint32_t address, int bytes) {
  char* const p = emulator::shared_memory() + address - kSharedBase;
  if (!emulator::is_shared(p, static_cast<size_t>(bytes)))
    emulator::fail("an address outside shared memory");
  return p;
}

}  // namespace detail

inline uint32_t shared_address(const void* p) {
  if (!emulator::is_shared(p, 0)) emulator::fail("not a pointer to shared memory");
  return detail::kSharedBase +
         static_cast<uint32_t>(static_cast<const char*>(p) - emulator::shared_memory());
}

// --- barriers in shared memory
// ------------------------------------------------------------------------------------------------

inline void init_barrier(uint64_t* barrier, int arrivals) {
  if (!emulator::is_shared(barrier, 8)) emulator::fail("init_barrier: not in shared memory");
  *barrier = 0;
  detail::write_barrier(barrier, {1, arrivals, 0, 0});  // as if a phase ended: number 0 begins
  detail::state().unfenced.insert(barrier);
}

inline void fence_barrier_init() { detail::state().unfenced.clear(); }

inline void arrive(uint64_t* barrier) {
  detail::BarrierBits b = detail::read_barrier(barrier);
  --b.pending;
  detail::write_barrier(barrier, b);
}

inline void arrive_expecting(uint64_t* barrier, int bytes) {
  detail::BarrierBits b = detail::read_barrier(barrier);
  --b.pending;
  b.bytes += bytes;
  detail::write_barrier(barrier, b);
}

inline void await_phase(uint64_t* barrier, int parity) {
  detail::read_barrier(barrier);
  // Asked between the threads, where nothing may fail: what ends the wait is looked at after it.
  emulator::wait_until([&] {
    return (*barrier & detail::kUnusedByBarrier) != 0 ||
           detail::read_barrier(barrier).phase != parity;
  });
  detail::read_barrier(barrier);
}

// --- tiles from global to shared memory
// ------------------------------------------------------------------------------------------------

inline void prefetch(const TensorMap&) {}

namespace detail {

// Copies the box row by row: the axis of neighbours, then the second. Rows have 128 bytes.
inline void copy_box(uint32_t to, const TensorMap& map, const std::array<int, 5>& at) {
  int counts[5] = {1, 1, 1, 1, 1};
  for (int i = 0; i < map.rank; ++i) counts[i] = (map.box[i] + map.steps[i] - 1) / map.steps[i];
  uint32_t address = to;
  int index[5];
  for (index[4] = 0; index[4] < counts[4]; ++index[4])
    for (index[3] = 0; index[3] < counts[3]; ++index[3])
      for (index[2] = 0; index[2] < counts[2]; ++index[2])
        for (index[1] = 0; index[1] < counts[1]; ++index[1]) {
          bool inside = true;
          int64_t offset = 0;
          for (int i = 1; i < map.rank; ++i) {
            const int64_t place = at[i] + int64_t{index[i]} * map.steps[i];
            inside = inside && place >= 0 && place < map.sizes[i];
            offset += place * map.strides[i];
          }
          for (int i = 0; i < counts[0]; ++i, address += kElement) {
            const int64_t place = int64_t{at[0]} + i;
            char* const target = shared_pointer(swizzled(address), kElement);
            if (inside && place >= 0 && place < map.sizes[0])
              std::memcpy(target, map.base + offset + place * kElement, kElement);
            else
              std::memset(target, 0, kElement);
          }
        }
}

inline void start_copy(void* to, const TensorMap& map, const std::array<int, 5>& at, int rank,
                       uint64_t* barrier) {
  if (rank != map.rank) emulator::fail("copy_tile: coordinates of another rank than the map's");
  if (state().unfenced.count(barrier))
    emulator::fail("copy_tile: a barrier without fence_barrier_init");
  const uint32_t address = shared_address(to);
  if (address % 128) emulator::fail("copy_tile: the target must be aligned to 128 bytes");
  int bytes = kElement;
  for (int i = 0; i < rank; ++i) bytes *= (map.box[i] + map.steps[i] - 1) / map.steps[i];
  if (!emulator::is_shared(to, static_cast<size_t>(bytes)))
    emulator::fail("copy_tile: the target lies outside shared memory");
  emulator::in_background([=] {
    copy_box(address, map, at);
    BarrierBits b = read_barrier(barrier);
    b.bytes -= bytes;
    write_barrier(barrier, b);
  });
}

}  // namespace detail

inline void copy_tile(void* to, const TensorMap& map, const int (&at)[3], uint64_t* barrier) {
  detail::start_copy(to, map, {at[0], at[1], at[2], 0, 0}, 3, barrier);
}
inline void copy_tile(void* to, const TensorMap& map, const int (&at)[5], uint64_t* barrier) {
  detail::start_copy(to, map, {at[0], at[1], at[2], at[3], at[4]}, 5, barrier);
}

// --- warpgroups
// ------------------------------------------------------------------------------------------------

namespace detail {

// What a multiprocessor gives each thread of a block that has it to itself, in units of 8.
inline int first_registers() {
  return static_cast<int>(kRegisters / emulator::block_threads() / 8 * 8);
}

inline int64_t registers_taken() {
  int64_t sum = 0;
  for (int i = 0; i < emulator::block_threads() / emulator::kWarp; ++i) {
    const int own = state().warps[i].registers;
    sum += int64_t{emulator::kWarp} * (own ? own : first_registers());
  }
  return sum;
}

}  // namespace detail

template <int Count>
void shrink_registers() {
  static_assert(Count >= 24 && Count <= 256 && Count % 8 == 0);
  emulator::collective("shrink_registers", nullptr, [](emulator::Lanes) {
    if (Count > detail::first_registers())
      emulator::fail("shrink_registers: to more than there were");
    detail::warp_state().registers = Count;
  });
}
template <int Count>
void grow_registers() {
  static_assert(Count >= 24 && Count <= 256 && Count % 8 == 0);
  const detail::WarpState& own = detail::warp_state();
  emulator::wait_until([&] {
    const int64_t more = (Count - detail::first_registers()) * int64_t{emulator::kWarp};
    const int64_t pool = int64_t{detail::first_registers()} * emulator::block_threads();
    return own.registers == Count || detail::registers_taken() + more <= pool;
  });
  emulator::collective("grow_registers", nullptr, [](emulator::Lanes) {
    if (Count < detail::first_registers())
      emulator::fail("grow_registers: to fewer than there were");
    detail::warp_state().registers = Count;
  });
}

inline void sync_some(int id, int threads) { emulator::barrier(id, threads); }

// --- values
// ------------------------------------------------------------------------------------------------

inline float larger(float a, float b) { return a > b || std::isnan(a) ? a : b; }

template <class T>
uint32_t pack_pair(float first, float second) {
  return static_cast<uint32_t>(narrow<T>(first).bits) |
         static_cast<uint32_t>(narrow<T>(second).bits) << 16;
}

// --- products
// ------------------------------------------------------------------------------------------------

namespace detail {

// Rows of 16 values of an operand from row `first` on, by its matrix descriptor: 8 rows of 128
// bytes after each other and then the stride offset further, in the layout of the swizzle mode.
template <class T, int Rows>
void read_operand(uint64_t descriptor, int first, float (&values)[Rows][16]) {
  const auto field = [&](int from, int bits) {
    return static_cast<uint32_t>(descriptor >> from & ((1ull << bits) - 1));
  };
  const uint32_t start = field(0, 14) << 4, stride = field(32, 14) << 4;
  if (field(62, 2) != 1) emulator::fail("a product's operand in another layout than 128 bytes");
  if (field(49, 3) != 0) emulator::fail("a product's operand with a base offset");
  if (field(14, 2) || field(30, 2) || field(46, 3) || field(52, 10))
    emulator::fail("a product's operand with bits that are reserved");
  constexpr int in_16_bytes = 16 / kElement;
  for (int i = 0; i < Rows; ++i) {
    const uint32_t row = static_cast<uint32_t>(first + i);
    for (int k = 0; k < 16; k += in_16_bytes) {
      const uint32_t address =
          start + row / 8 * stride + row % 8 * 128 + static_cast<uint32_t>(k) * kElement;
      T neighbours[in_16_bytes];
      std::memcpy(neighbours, shared_pointer(swizzled(address), 16), 16);
      for (int n = 0; n < in_16_bytes; ++n) values[i][k + n] = widen(neighbours[n]);
    }
  }
}

template <class T, int Columns>
void multiply(int warp, WarpProduct* p) {
  constexpr int rows = 16, depth = 16;
  float a[rows][depth], b[Columns][depth], transposed[depth][Columns];
  read_operand<T>(p->a, warp % kGroupWarps * rows, a);
  read_operand<T>(p->b, 0, b);
  for (int column = 0; column < Columns; ++column)
    for (int k = 0; k < depth; ++k) transposed[k][column] = b[column][k];
  float* const values = p->sums->values.data();
  for (int row = 0; row < rows; ++row)
    for (int k = 0; k < depth; ++k)
      for (int column = 0; column < Columns; ++column)
        values[row * Columns + column] += a[row][k] * transposed[k][column];
  emulator::count({0, 0, int64_t{rows} * depth * Columns});
}

inline void perform(int warp, WarpProduct* p) {
  if (p->done) return;
  p->execute(warp, p);
  p->done = true;
}

// Where row and column of a warp's sums are: the lane, and its register.
inline float* sum_register(const Sums& s, int row, int column) {
  return s.lanes[row % 8 * 4 + column % 8 / 2] + column / 8 * 4 + row / 8 * 2 + column % 2;
}

struct ProductArgument {
  float* d;
  uint64_t a, b;
};

template <class T, int Columns>
void start(emulator::Lanes lanes) {
  const auto* first = static_cast<ProductArgument*>(lanes[0]);
  const int warp = detail::warp();
  WarpState& w = warp_state();
  auto& operands = state().operands[warp / kGroupWarps];
  if (operands.size() == w.started) operands.emplace_back(first->a, first->b);
  if (operands[w.started++] != std::make_pair(first->a, first->b))
    emulator::fail("start_product: the warps of a warpgroup disagree on the operands");
  const auto inserted = w.sums.emplace(first->d, Sums{});
  Sums& s = inserted.first->second;
  if (inserted.second) {
    if (!w.fenced) emulator::fail("start_product: registers were used after begin_products");
    s.columns = Columns;
    s.under_way = 0;
    s.values.resize(16 * Columns);
    for (int lane = 0; lane < emulator::kWarp; ++lane) {
      const auto* p = static_cast<ProductArgument*>(lanes[lane]);
      if (p->a != first->a || p->b != first->b)
        emulator::fail("start_product: the lanes of a warp disagree on the operands");
      s.lanes[lane] = p->d;
    }
    for (int row = 0; row < 16; ++row)
      for (int column = 0; column < Columns; ++column) {
        float* const place = sum_register(s, row, column);
        s.values[row * Columns + column] = *place;
        *place = float_of(kUnderWay);
      }
  }
  ++s.under_way;
  w.open.push_back({&s, first->a, first->b, false, multiply<T, Columns>});
  if (!emulator::coin()) return;
  for (auto& group : w.groups)
    for (WarpProduct& p : group) perform(warp, &p);
  for (WarpProduct& p : w.open) perform(warp, &p);
}

inline void await(int groups_left) {
  const int warp = detail::warp();
  WarpState& w = warp_state();
  while (static_cast<int>(w.groups.size()) > groups_left) {
    for (WarpProduct& p : w.groups.front()) {
      perform(warp, &p);
      --p.sums->under_way;
    }
    w.groups.pop_front();
  }
  for (auto i = w.sums.begin(); i != w.sums.end();) {
    const Sums& s = i->second;
    for (int row = 0; row < 16; ++row)
      for (int column = 0; column < s.columns; ++column) {
        float* const place = sum_register(s, row, column);
        if (bits_of(*place) != kUnderWay)
          emulator::fail("a register of a product was written before the product was awaited");
        if (s.under_way == 0) *place = s.values[row * s.columns + column];
      }
    if (s.under_way == 0) {
      w.fenced = false;
      i = w.sums.erase(i);
    } else {
      ++i;
    }
  }
}

}  // namespace detail

inline void begin_products() {
  emulator::collective("begin_products", nullptr,
                       [](emulator::Lanes) { detail::warp_state().fenced = true; });
}

inline void commit_products() {
  emulator::collective("commit_products", nullptr, [](emulator::Lanes) {
    detail::WarpState& w = detail::warp_state();
    w.groups.push_back(std::move(w.open));
    w.open.clear();
  });
}

template <int GroupsLeft>
void await_products() {
  emulator::collective("await_products", nullptr,
                       [](emulator::Lanes) { detail::await(GroupsLeft); });
}

template <int Count>
void pin(float (&)[Count]) {}

template <class T, int Columns>
void start_product(float (&d)[Columns / 2], uint64_t a, uint64_t b) {
  detail::ProductArgument mine{d, a, b};
  emulator::collective("start_product", &mine, detail::start<T, Columns>);
}

}  // namespace device

// --- on the host
// ------------------------------------------------------------------------------------------------

// By the rules of cuTensorMapEncodeTiled, in its order.
inline const char* encode(TensorMap* map, Storage storage, const BoxedTensor& t) {
  if (storage == Storage::kFloat) return "encode: not a type of 16 bits";
  if (t.rank < 1 || t.rank > 5) return "encode: a rank beyond 5";
  if (reinterpret_cast<uintptr_t>(t.data) % 16) return "encode: data not aligned to 16 bytes";
  *map = {static_cast<const char*>(t.data), t.rank, {}, {}, {}, {}};
  for (int i = 0; i < t.rank; ++i) {
    map->sizes[i] = t.sizes[i];
    map->strides[i] = t.strides[i] * device::detail::kElement;
    map->box[i] = t.box[i] * t.steps[i];
    map->steps[i] = t.steps[i];
    if (t.sizes[i] < 1 || t.sizes[i] > int64_t{1} << 32) return "encode: a size out of range";
    if (i > 0 && (map->strides[i] % 16 || map->strides[i] >= int64_t{1} << 40))
      return "encode: a stride that is too large or not a multiple of 16 bytes";
    if (map->box[i] < 1 || map->box[i] > 256) return "encode: a box beyond 256";
    if (t.steps[i] < 1 || t.steps[i] > 8) return "encode: a step beyond 8";
  }
  if (t.strides[0] != 1 || t.steps[0] != 1) return "encode: the first axis is one of neighbours";
  if (t.box[0] * device::detail::kElement != 128) return "encode: a row of a tile has 128 bytes";
  return nullptr;
}

// Few, so that a block computes several tiles.
inline int hopper_processors() { return 3; }

}  // namespace vinpaint
