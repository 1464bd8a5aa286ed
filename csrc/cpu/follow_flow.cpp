// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>

#include "../tensor.h"

namespace vinpaint::cpu {

namespace {

// The flow of every frame of a window on a grid with one point for `cell` x `cell` pixels.
struct FlowGrid {
  int64_t height, width, cell;
  const float* flow;   // (F, height, width, 2): right and down, in pixels
  const float* error;  // (F, height, width): pixels; not finite: no way

  struct Step {
    float right, down, error;
  };

  // Bilinear between the grid's points; beyond the outermost ones as they are.
  Step at(int64_t frame, float x, float y) const {
    const float offset = (static_cast<float>(cell) - 1) / 2, scale = static_cast<float>(cell);
    const float column = std::clamp((x - offset) / scale, 0.0F, static_cast<float>(width - 1));
    const float row = std::clamp((y - offset) / scale, 0.0F, static_cast<float>(height - 1));
    const auto left = static_cast<int64_t>(column), top = static_cast<int64_t>(row);
    const float across = column - static_cast<float>(left), along = row - static_cast<float>(top);
    Step sum{0, 0, 0};
    for (int64_t i = 0; i < 2; ++i)
      for (int64_t j = 0; j < 2; ++j) {
        const float weight = (i ? along : 1 - along) * (j ? across : 1 - across);
        if (weight == 0) continue;  // nor is there a point beyond the last
        const int64_t point = (frame * height + top + i) * width + left + j;
        sum.right += weight * flow[2 * point];
        sum.down += weight * flow[2 * point + 1];
        sum.error += weight * error[point];
      }
    return sum;
  }
};

std::tuple<Tensor, Tensor, Tensor> follow_flow(const Tensor& flow, const Tensor& error,
                                               const Tensor& hole, int64_t frame, int64_t step,
                                               int64_t reach, int64_t cell) {
  constexpr const char* op = "follow_flow";
  STD_TORCH_CHECK(flow.scalar_type() == ScalarType::Float, op, ": flow must be float32, got ",
                  torch::headeronly::toString(flow.scalar_type()));
  STD_TORCH_CHECK(error.scalar_type() == ScalarType::Float, op, ": error must be float32, got ",
                  torch::headeronly::toString(error.scalar_type()));
  STD_TORCH_CHECK(hole.scalar_type() == ScalarType::Byte || hole.scalar_type() == ScalarType::Bool,
                  op, ": hole must be uint8 or bool, got ",
                  torch::headeronly::toString(hole.scalar_type()));
  STD_TORCH_CHECK(hole.dim() == 3 && hole.numel() > 0, op,
                  ": hole must have the shape (F, H, W) and at least one pixel, got ",
                  to_string(sizes_of(hole)));
  const int64_t frames = hole.size(0), height = hole.size(1), width = hole.size(2);
  STD_TORCH_CHECK(
      flow.dim() == 4 && flow.size(0) == frames && flow.size(3) == 2 && flow.numel() > 0, op,
      ": flow must have the shape (F, h, w, 2) with the frames of hole, got ",
      to_string(sizes_of(flow)));
  Ints planes = sizes_of(flow);
  planes.pop_back();
  STD_TORCH_CHECK(sizes_of(error) == planes, op, ": error must have the shape ", to_string(planes),
                  ", got ", to_string(sizes_of(error)));
  STD_TORCH_CHECK(frame >= 0 && frame < frames, op, ": frame must be one of ", frames, ", got ",
                  frame);
  STD_TORCH_CHECK(step == 1 || step == -1, op, ": step must be 1 or -1, got ", step);
  STD_TORCH_CHECK(reach >= 0, op, ": reach must not be negative, got ", reach);
  STD_TORCH_CHECK(cell >= 1, op, ": cell must be positive, got ", cell);

  const auto points = [cell](int64_t side) { return (side - 1) / cell + 1; };
  STD_TORCH_CHECK(flow.size(1) == points(height) && flow.size(2) == points(width), op,
                  ": flow must have a point for every ", cell, " x ", cell, " pixels of ",
                  to_string(sizes_of(hole)), ", got ", to_string(sizes_of(flow)));

  const Tensor dense_flow = torch::stable::contiguous(flow);
  const Tensor dense_error = torch::stable::contiguous(error);
  const Tensor dense_hole = torch::stable::contiguous(hole);
  const FlowGrid grid{flow.size(1), flow.size(2), cell,
                      static_cast<const float*>(dense_flow.const_data_ptr()),
                      static_cast<const float*>(dense_error.const_data_ptr())};
  const auto* holes = static_cast<const uint8_t*>(dense_hole.const_data_ptr());

  const Tensor source = empty_like(flow, {height, width}, ScalarType::Int);
  const Tensor place = empty_like(flow, {height, width, 2}, ScalarType::Float);
  const Tensor off = empty_like(flow, {height, width}, ScalarType::Float);
  auto* sources = static_cast<int32_t*>(source.mutable_data_ptr());
  auto* places = static_cast<float*>(place.mutable_data_ptr());
  auto* offs = static_cast<float*>(off.mutable_data_ptr());

  const float right_end = static_cast<float>(width - 1),
              bottom_end = static_cast<float>(height - 1);
  const int64_t last =
      step > 0 ? frame + std::min(reach, frames - 1 - frame) : frame - std::min(reach, frame);
  torch::stable::parallel_for(0, height, 4, [&](int64_t begin, int64_t end) {
    for (int64_t pixel = begin * width; pixel < end * width; ++pixel) {
      sources[pixel] = -1;
      places[2 * pixel] = places[2 * pixel + 1] = 0;
      offs[pixel] = std::numeric_limits<float>::infinity();
      if (!holes[frame * height * width + pixel]) continue;
      auto x = static_cast<float>(pixel % width), y = static_cast<float>(pixel / width);
      float sum = 0;
      for (int64_t at = frame; at != last;) {
        const FlowGrid::Step way = grid.at(at, x, y);
        x += way.right;
        y += way.down;
        sum += way.error;
        at += step;
        // Neither does a value that is no number pass.
        if (!(std::isfinite(sum) && x >= 0 && x <= right_end && y >= 0 && y <= bottom_end)) break;
        const auto column = static_cast<int64_t>(std::lround(x));
        const auto row = static_cast<int64_t>(std::lround(y));
        if (holes[(at * height + row) * width + column]) continue;
        sources[pixel] = static_cast<int32_t>(at);
        places[2 * pixel] = x;
        places[2 * pixel + 1] = y;
        offs[pixel] = sum;
        break;
      }
    }
  });
  return {source, place, off};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(vinpaint, CPU, m) { m.impl("follow_flow", TORCH_BOX(&follow_flow)); }

}  // namespace vinpaint::cpu
