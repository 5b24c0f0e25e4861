// camera: classifies one frame after another while another thread turns lambda, as an alarm comes and goes. The frames
// are a folder's pictures; a camera's are as good: README.md shows the ImageView of a frame of OpenCV's.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <future>
#include <thread>

#include "floats_rt/lambda_policy.hpp"
#include "image.hpp"

using namespace std::chrono_literals;

// Classifies every picture in a folder. `alarm` is made up: every other ten frames it says that there is something to
// guard against, as a detector, a mode of the vehicle or an operator would. The network's own confidence would be a
// poor signal, because lambda changes it.
static void watch(floats_rt::Model& model, const char* folder, std::atomic<double>& alarm) {
  std::vector<float> logits(model.output().size());
  int frames = 0;
  for (const auto& file : std::filesystem::directory_iterator(folder)) {
    std::this_thread::sleep_for(33ms);
    alarm = frames++ / 10 % 2;
    const Picture frame = load_picture(file.path().string());
    model.infer(frame.view(), logits);
    const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
    std::printf("lambda %.2f  %s\n", double{model.lambda()}, model.labels()[static_cast<std::size_t>(best)].c_str());
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
  settings.hold = 0.1;  // seconds that lambda stays high after an alarm
  floats_rt::LambdaPolicy policy(settings);

  std::atomic<double> alarm{0};
  const auto start = std::chrono::steady_clock::now();
  auto watching = std::async(std::launch::async, [&] { watch(model, arguments[2], alarm); });
  while (watching.wait_for(10ms) != std::future_status::ready) {
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
    model.request_lambda(policy.update(alarm, passed.count()).lambda);
  }
  watching.get();
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
