// SPDX-License-Identifier: Apache-2.0
// The weight gradient as an operator, for the tests: the product has it only inside the convolution
// operators. Also what the emulator counts. Workspace and result come from the caller, who can
// poison them.
#include "../tensor.h"
#include "../weight_gradient.h"
#include "emulator.h"

namespace vinpaint {

namespace {

constexpr int kMultiprocessors = 132;

// `rows` and `gathered` are sizes (N, C, F, H, W); each list of three is a field of
// WeightGradientAxis. `out_strides`: from a row, a tap and a column of the result to the next.
WeightGradient planned(const Ints& rows, const Ints& gathered, const Ints& kernel,
                       const Ints& in_step, const Ints& first, const Ints& step,
                       const Ints& out_strides, bool exact, int64_t most_workspace) {
  const auto narrow = [](int64_t v) { return static_cast<int>(v); };
  WeightGradient g{};
  g.batch = narrow(rows[0]);
  for (int i = 0; i < 3; ++i)
    g.axes[i] = {narrow(rows[2 + i]), narrow(gathered[2 + i]), narrow(kernel[i]),
                 narrow(in_step[i]),  narrow(first[i]),        narrow(step[i])};
  g.row_channels = narrow(rows[1]);
  g.col_channels = narrow(gathered[1]);
  g.out_row = out_strides[0];
  g.out_tap = out_strides[1];
  g.out_col = out_strides[2];
  g.exact = exact;
  plan_weight_gradient(&g, kMultiprocessors, most_workspace);
  return g;
}

// Splits, blocks, floats of workspace, and whether the tensors change places.
Ints plan(const Ints& rows, const Ints& gathered, const Ints& kernel, const Ints& in_step,
          const Ints& first, const Ints& step, bool exact, int64_t most_workspace) {
  const WeightGradient g =
      planned(rows, gathered, kernel, in_step, first, step, {0, 0, 0}, exact, most_workspace);
  return {g.splits, g.splits * g.row_blocks() * g.column_blocks(), g.workspace(), g.exchanged};
}

// With `splits` > 0 they take the place of the plan's.
void weight_gradient(const Tensor& rows, const Tensor& gathered, const Ints& kernel,
                     const Ints& in_step, const Ints& first, const Ints& step,
                     const Ints& out_strides, bool exact, int64_t splits, const Tensor& workspace,
                     const Tensor& out) {
  WeightGradient g = planned(sizes_of(rows), sizes_of(gathered), kernel, in_step, first, step,
                             out_strides, exact, kMostWorkspace);
  if (splits > 0) g.splits = static_cast<int>(splits);
  STD_TORCH_CHECK(workspace.numel() == g.workspace(), "the workspace must have ", g.workspace(),
                  " floats, got ", workspace.numel());
  const Storage storage = storage_of(rows.scalar_type());
  const char* error = launch_weight_gradient(
      g, storage, rows.const_data_ptr(), gathered.const_data_ptr(),
      static_cast<float*>(workspace.mutable_data_ptr()), out.mutable_data_ptr(), nullptr);
  STD_TORCH_CHECK(error == nullptr, "launch failed: ", error);
}

// Matrix loads, those of them with bank conflicts, and products since the last call.
Ints counters() {
  const emulator::Counters c = emulator::counters();
  emulator::reset_counters();
  return {c.matrix_loads, c.matrix_conflicts, c.products};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(vinpaint_emulated, m) {
  m.def(
      "_weight_gradient_plan(int[] rows, int[] gathered, int[] kernel, int[] in_step, "
      "int[] first, int[] step, bool exact, int most_workspace) -> int[]");
  m.def(
      "_weight_gradient(Tensor rows, Tensor gathered, int[] kernel, int[] in_step, int[] first, "
      "int[] step, int[] out_strides, bool exact, int splits, Tensor(a!) workspace, "
      "Tensor(b!) out) -> ()");
  m.def("_counters() -> int[]");
}

STABLE_TORCH_LIBRARY_IMPL(vinpaint_emulated, CompositeExplicitAutograd, m) {
  m.impl("_weight_gradient_plan", TORCH_BOX(&plan));
  m.impl("_weight_gradient", TORCH_BOX(&weight_gradient));
  m.impl("_counters", TORCH_BOX(&counters));
}

}  // namespace vinpaint
