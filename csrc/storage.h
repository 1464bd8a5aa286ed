// SPDX-License-Identifier: Apache-2.0
// The types in which a tensor may be stored on a GPU.
#pragma once

namespace vinpaint {

enum class Storage { kFloat, kHalf, kBFloat16 };

}  // namespace vinpaint
