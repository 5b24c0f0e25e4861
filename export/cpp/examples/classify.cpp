// classify: the likeliest classes of one image at one lambda.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <numeric>

#include "image.hpp"

int main(int count, char** arguments) try {
  if (count < 4) {
    std::fputs("usage: classify BUNDLE IMAGE LAMBDA [tensorrt|onnxruntime]\n", stderr);
    return 2;
  }
  floats_rt::Model model = floats_rt::Model::load(arguments[1], options_from(count, arguments, 4));
  model.set_lambda(std::strtof(arguments[3], nullptr));
  const Picture picture = load_picture(arguments[2]);
  std::vector<float> logits(model.output().size());
  model.infer(picture.view(), logits);

  std::vector<std::size_t> order(logits.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const std::size_t shown = std::min<std::size_t>(5, order.size());
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(shown), order.end(),
                    [&](std::size_t a, std::size_t b) { return logits[a] > logits[b]; });
  double sum = 0;
  for (const float logit : logits) sum += std::exp(double{logit} - logits[order[0]]);
  for (std::size_t i = 0; i < shown; ++i) {
    const std::size_t at = order[i];
    std::printf("%5.1f %%  %s\n", 100 * std::exp(double{logits[at]} - logits[order[0]]) / sum,
                model.labels()[at].c_str());
  }
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
