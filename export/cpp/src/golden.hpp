// Golden outputs: real images, and what the trained network gives for them at some lambdas.
#pragma once

#include <cstddef>
#include <vector>

#include "bundle.hpp"

namespace floats_rt {

struct GoldenOutputs {
  std::size_t batch;
  std::vector<float> images;               // [batch, channels, height, width]
  std::vector<std::vector<float>> logits;  // [batch, classes], by lambda
  std::vector<double> allowed;             // absolute error of a logit, by lambda
};

// Those of a bundle, as floats_edge/runtime/golden.py reads them. Throws Error: bundle_invalid.
GoldenOutputs read_golden(const Bundle& bundle);

}  // namespace floats_rt
