// SPDX-License-Identifier: Apache-2.0
// A channels-last tensor as the passes see it.
#pragma once

#include <cstdint>

namespace vinpaint {

struct Rows {
  int64_t rows;      // N * F * H * W
  int64_t channels;  // values a row, contiguous
};

}  // namespace vinpaint
