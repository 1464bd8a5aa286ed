// SPDX-License-Identifier: Apache-2.0
// The choice of algorithms, as the tests steer it.
#include "../cuda/plan.h"
#include "../tensor.h"

namespace vinpaint {

namespace {

void force(std::string name) {
  STD_TORCH_CHECK(force_algorithm(name), "no algorithm is called ", name);
}

// Turns measuring on or off; returns how many products have been measured.
int64_t measure(bool on) {
  measure_products(on);
  return static_cast<int64_t>(measured_lines().size());
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(vinpaint_emulated, m) {
  m.def("_force_algorithm(str name) -> ()");
  m.def("_measure_products(bool on) -> int");
}

STABLE_TORCH_LIBRARY_IMPL(vinpaint_emulated, CompositeExplicitAutograd, m) {
  m.impl("_force_algorithm", TORCH_BOX(&force));
  m.impl("_measure_products", TORCH_BOX(&measure));
}

}  // namespace vinpaint
