// knob: turns lambda while the model runs, and prints what each position costs and gives on a folder of images; then
// another thread turns it, as an operator or a LambdaPolicy would.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <set>
#include <thread>

#include "image.hpp"

namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

struct Sample {
  Picture picture;
  std::size_t label;
};

// The images of FOLDER/LABEL/*, for every label of the model.
std::vector<Sample> load_samples(const fs::path& folder, const floats_rt::Model& model) {
  std::vector<Sample> samples;
  for (std::size_t label = 0; label < model.labels().size(); ++label) {
    const fs::path of_label = folder / model.labels()[label];
    if (!fs::is_directory(of_label)) continue;
    for (const auto& file : fs::directory_iterator(of_label)) {
      samples.push_back({load_picture(file.path().string()), label});
    }
  }
  if (samples.empty()) throw std::runtime_error(folder.string() + " holds no folder that is named like a label");
  return samples;
}

double milliseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

// One line: accuracy on the samples, and the time of the switch and of one image (median), preprocessing included.
void sweep(floats_rt::Model& model, float lam, const std::vector<Sample>& samples) {
  const auto switching = Clock::now();
  model.set_lambda(lam);
  const double switched = milliseconds_since(switching);
  std::vector<float> logits(model.output().size());
  std::vector<double> times;
  std::size_t correct = 0;
  for (const Sample& sample : samples) {
    const auto start = Clock::now();
    model.infer(sample.picture.view(), logits);
    times.push_back(milliseconds_since(start));
    const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
    correct += static_cast<std::size_t>(best) == sample.label;
  }
  const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
  std::nth_element(times.begin(), middle, times.end());
  std::printf("%6.2f  %8.2f  %9.3f  %9.3f\n", double{lam},
              100.0 * static_cast<double>(correct) / static_cast<double>(samples.size()), *middle, switched);
}

// One line: how many inferences there were, at how many lambdas, while another thread went through all of them.
void turned_by_another_thread(floats_rt::Model& model, const std::vector<float>& lambdas, const Picture& picture) {
  std::atomic<bool> ended{false};
  std::thread knob([&] {
    for (const float lam : lambdas) {
      model.request_lambda(lam);  // returns at once: weights are made beside those in use
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    ended = true;
  });
  std::vector<float> logits(model.output().size());
  std::size_t inferences = 0;
  std::set<float> used;
  for (; !ended; ++inferences) {
    model.infer(picture.view(), logits);
    used.insert(model.lambda());
  }
  knob.join();
  std::printf("%zu inferences at %zu lambdas while another thread turned the knob\n", inferences, used.size());
}

}  // namespace

int main(int count, char** arguments) try {
  if (count < 3) {
    std::fputs("usage: knob BUNDLE FOLDER [tensorrt|onnxruntime]\n\nFOLDER holds one folder of images per label.\n",
               stderr);
    return 2;
  }
  floats_rt::Model model = floats_rt::Model::load(arguments[1], options_from(count, arguments, 3));
  const std::vector<Sample> samples = load_samples(arguments[2], model);
  std::vector<float> lambdas = model.lambda_range().values;
  if (lambdas.empty()) lambdas = {0, 0.25, 0.5, 0.75, 1};
  std::printf("%zu images\nlambda  correct %%  ms/image  ms/switch\n", samples.size());
  for (const float lam : lambdas) sweep(model, lam, samples);
  turned_by_another_thread(model, lambdas, samples.front().picture);
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
