// camera: classifies one frame after another while another thread turns lambda: the less sure the network is of what it
// sees, the more robust it is made. The frames are a folder's pictures; a camera's are as good: README.md shows
// the ImageView of a frame of OpenCV's.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <future>
#include <thread>

#include "floats_rt/lambda_policy.hpp"
#include "image.hpp"

using namespace std::chrono_literals;

// Classifies every picture in a folder, and says in `doubt` how unsure it was of the last one, from 0 to 1.
static void watch(floats_rt::Model& model, const char* folder, std::atomic<double>& doubt) {
  std::vector<float> logits(model.output().size());
  for (const auto& file : std::filesystem::directory_iterator(folder)) {
    std::this_thread::sleep_for(33ms);
    const Picture frame = load_picture(file.path().string());
    model.infer(frame.view(), logits);
    const auto best = std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (const float logit : logits) sum += std::exp(double{logit} - *best);
    doubt = 1 - 1 / sum;
    const std::string& label = model.labels()[static_cast<std::size_t>(best - logits.begin())];
    std::printf("lambda %.2f  %5.1f %%  %s\n", double{model.lambda()}, 100 / sum, label.c_str());
  }
}

int main(int count, char** arguments) try {
  if (count < 3) {
    std::fputs("usage: camera BUNDLE FOLDER [tensorrt|onnxruntime]\n", stderr);
    return 2;
  }
  floats_rt::Model model = floats_rt::Model::load(arguments[1], options_from(count, arguments, 3));
  floats_rt::PolicySettings settings;
  settings.quiet = model.lambda_range().minimum;
  settings.alert = model.lambda_range().maximum;
  settings.enter = 0.1;   // from this doubt on, lambda is the highest there is
  settings.leave = 0.05;  // down to this one, and for at least `hold` seconds
  settings.hold = 0.2;
  floats_rt::LambdaPolicy policy(settings);

  std::atomic<double> doubt{0};
  const auto start = std::chrono::steady_clock::now();
  auto watching = std::async(std::launch::async, [&] { watch(model, arguments[2], doubt); });
  while (watching.wait_for(10ms) != std::future_status::ready) {
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
    model.request_lambda(policy.update(doubt, passed.count()).lambda);
  }
  watching.get();
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
