// SPDX-License-Identifier: Apache-2.0
#include "plan.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <mutex>
#include <sstream>

namespace vinpaint {

namespace {

struct Entry {
  Product product;
  Algorithm fastest;
};

using A = Algorithm;
using S = Storage;

const std::vector<Entry>& table() {
  static const std::vector<Entry> entries = {
#include "tuning_table.inc"
  };
  return entries;
}

constexpr int kNothing = -1;
std::atomic<int> forced{kNothing};
std::atomic<bool> measuring{false};
std::mutex mutex;  // guards `measured`
std::vector<Entry> measured;
std::atomic<bool> any_measured{false};

bool same(const int (&a)[3], const int (&b)[3]) { return std::equal(a, a + 3, b); }

bool alike_but_for_size(const Product& a, const Product& b) {
  return a.capability == b.capability && a.storage == b.storage && a.exact == b.exact &&
         a.weight_gradient == b.weight_gradient && same(a.kernel, b.kernel) &&
         same(a.in_step, b.in_step) && same(a.phases, b.phases) && same(a.dilation, b.dilation) &&
         a.x_channels == b.x_channels && a.skip_channels == b.skip_channels &&
         a.out_channels == b.out_channels;
}

// The entry nearest in size; null if none is alike.
const Entry* nearest(const std::vector<Entry>& entries, const Product& product) {
  const Entry* best = nullptr;
  const auto distance = [&](const Entry& e) {
    return std::abs(e.product.positions_log2 - product.positions_log2);
  };
  for (const Entry& e : entries)
    if (alike_but_for_size(e.product, product) &&
        (best == nullptr || distance(e) < distance(*best)))
      best = &e;
  return best;
}

int log2_of(int64_t value) {
  int log2 = 0;
  while (value >>= 1) ++log2;
  return log2;
}

const char* name_of(Storage s) {
  return s == Storage::kHalf ? "S::kHalf" : s == Storage::kBFloat16 ? "S::kBFloat16" : "S::kFloat";
}

const char* name_of(Algorithm a) {
  return a == Algorithm::kHopper    ? "A::kHopper"
         : a == Algorithm::kLibrary ? "A::kLibrary"
                                    : "A::kPortable";
}

std::string text_of(const int (&v)[3]) {
  std::ostringstream text;
  text << '{' << v[0] << ", " << v[1] << ", " << v[2] << '}';
  return text.str();
}

}  // namespace

Product product_of(const ImplicitGemm& g, Storage storage, int capability) {
  Product p{capability, storage,      g.exact,         false,          {}, {}, {},
            {},         g.x_channels, g.skip_channels, g.out_channels, 0};
  int64_t positions = g.batch;
  for (int i = 0; i < 3; ++i) {
    const Axis& a = g.axes[i];
    p.kernel[i] = a.kernel;
    p.in_step[i] = a.in_step;
    p.phases[i] = a.phases;
    p.dilation[i] = std::abs(a.taps[0].step);
    positions *= a.out;
  }
  p.positions_log2 = log2_of(positions);
  return p;
}

Product product_of(const WeightGradient& g, Storage storage, int capability) {
  Product p{capability, storage,        g.exact, true,           {}, {}, {1, 1, 1},
            {},         g.row_channels, 0,       g.col_channels, 0};
  for (int i = 0; i < 3; ++i) {
    const WeightGradientAxis& a = g.axes[i];
    p.kernel[i] = a.kernel;
    p.in_step[i] = a.in_step;
    p.dilation[i] = std::abs(a.step);
  }
  p.positions_log2 = log2_of(g.batch * g.positions());
  return p;
}

Algorithm choose_algorithm(const Product& product) {
  const int algorithm = forced;
  if (algorithm != kNothing) return static_cast<Algorithm>(algorithm);
  if (any_measured) {
    const std::lock_guard<std::mutex> lock(mutex);
    const Entry* const own = nearest(measured, product);
    if (own != nullptr) return own->fastest;
  }
  const Entry* const known = nearest(table(), product);
  return known != nullptr ? known->fastest : Algorithm::kPortable;
}

bool force_algorithm(const std::string& name) {
  const auto say = [](int algorithm) {
    forced = algorithm;
    return true;
  };
  if (name.empty()) return say(kNothing);
  if (name == "portable") return say(static_cast<int>(Algorithm::kPortable));
  if (name == "hopper") return say(static_cast<int>(Algorithm::kHopper));
  if (name == "library") return say(static_cast<int>(Algorithm::kLibrary));
  return false;
}

void measure_products(bool on) { measuring = on; }

bool is_to_be_measured(const Product& product) {
  if (!measuring) return false;
  const std::lock_guard<std::mutex> lock(mutex);
  const Entry* const own = nearest(measured, product);
  return own == nullptr || own->product.positions_log2 != product.positions_log2;
}

void keep_measured(const Product& product, Algorithm fastest) {
  const std::lock_guard<std::mutex> lock(mutex);
  measured.push_back({product, fastest});
  any_measured = true;
}

std::vector<std::string> measured_lines() {
  const std::lock_guard<std::mutex> lock(mutex);
  std::vector<std::string> lines;
  for (const Entry& e : measured) {
    const Product& p = e.product;
    std::ostringstream line;
    line << "{{" << p.capability << ", " << name_of(p.storage) << ", "
         << (p.exact ? "true" : "false") << ", " << (p.weight_gradient ? "true" : "false") << ", "
         << text_of(p.kernel) << ", " << text_of(p.in_step) << ", " << text_of(p.phases) << ", "
         << text_of(p.dilation) << ", " << p.x_channels << ", " << p.skip_channels << ", "
         << p.out_channels << ", " << p.positions_log2 << "}, " << name_of(e.fastest) << "},";
    lines.push_back(line.str());
  }
  return lines;
}

}  // namespace vinpaint
