// Prints what infer costs over ONNX Runtime's C API called bare, what a camera's image costs, what set_lambda costs,
// and what inferences wait while another thread requests lambdas.
//
// usage: FLOATS_RT_ONNXRUNTIME=LIBRARY floats_rt_bench FIXED [BUNDLE...]   (a bundle of mode fixed, bundles to switch)
//
// One thread, batch 1. What is compared takes turns, so that both see the same machine; medians and the quartiles of
// 2000 calls, and of 200 switches and of 200 images, these in time of the processor. Then medians, 99th percentiles and
// the longest of 5000 inferences with nobody at the knob, and of 5000 while it is turned every 5 ms; and how often
// their thread left the processor of its own accord, to wait: that does not depend on what else the machine does.
#include <sys/resource.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <functional>
#include <thread>

#include "bare_onnxruntime.hpp"
#include "floats_rt/floats_rt.hpp"

namespace {

double microseconds(const std::function<void()>& call) {
  const auto start = std::chrono::steady_clock::now();
  call();
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count();
}

// The same in time of the processor, in which other programs that want it do not count.
double processor_microseconds(const std::function<void()>& call) {
  const auto now = [] {
    timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return 1e6 * static_cast<double>(time.tv_sec) + 1e-3 * static_cast<double>(time.tv_nsec);
  };
  const double start = now();
  call();
  return now() - start;
}

// Prints quartiles and returns the median.
double show(const char* what, std::vector<double> times) {
  std::sort(times.begin(), times.end());
  const std::size_t count = times.size();
  std::printf("%-28s %9.1f us  (quartiles %.1f, %.1f; n = %zu)\n", what, times[count / 2], times[count / 4],
              times[3 * count / 4], count);
  return times[count / 2];
}

void compare_inference(const std::string& bundle, const floats_rt::Options& options) {
  floats_rt::Model model = floats_rt::Model::load(bundle, options);
  const floats_rt::InputSpec& input = model.input();
  std::vector<float> images(input.size(), 0.5f), logits(model.output().size()), bare_logits(logits.size());
  const auto axis = [](std::size_t size) { return static_cast<int64_t>(size); };
  BareOnnxRuntime bare(bundle + "/model.onnx", 1, images,
                       {1, axis(input.channels), axis(input.height), axis(input.width)}, bare_logits);
  std::vector<double> ours, theirs;
  for (int i = 0; i < 2200; ++i) {
    const double our = microseconds([&] { model.infer(images, 1, logits); });
    const double their = microseconds([&] { bare.run(); });
    if (i >= 200) ours.push_back(our), theirs.push_back(their);
  }
  const double ratio = show("infer", ours) / show("the C API called bare", theirs);
  std::printf("%-28s %+9.2f %%\n", "difference", 100 * (ratio - 1));
}

// What becomes of an image of 1280 x 720 pixels, blue first.
void compare_preprocessing(const std::string& bundle, const floats_rt::Options& options) {
  floats_rt::Model model = floats_rt::Model::load(bundle, options);
  std::vector<std::uint8_t> bytes(720 * 1280 * 3);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::uint8_t>(i * i / 1000);
  const floats_rt::ImageView image{bytes.data(), 720, 1280, floats_rt::Colours::bgr};
  std::vector<float> pixels(model.input().size()), logits(model.output().size());
  std::vector<double> before, network;
  for (int i = 0; i < 210; ++i) {
    const double made = processor_microseconds([&] { model.preprocess(image, pixels); });
    const double run = processor_microseconds([&] { model.infer(pixels, 1, logits); });
    if (i >= 10) before.push_back(made), network.push_back(run);
  }
  const double ratio = show("preprocess 1280x720", before) / show("infer", network);
  std::printf("%-28s %9.2f %%\n", "of the inference", 100 * ratio);
}

void time_switch(const std::string& bundle, const floats_rt::Options& options) {
  floats_rt::Model model = floats_rt::Model::load(bundle, options);
  std::vector<double> times;
  for (int i = 0; i < 210; ++i) {
    const double time = microseconds([&] { model.set_lambda(i % 2 ? 0.25f : 0.75f); });
    if (i >= 10) times.push_back(time);
  }
  show(("set_lambda: " + bundle).c_str(), times);
}

long times_waited() {
  rusage usage{};
  ::getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_nvcsw;
}

// Times 5000 inferences; how often lambda changed.
std::size_t show_inferences(const char* what, floats_rt::Model& model) {
  std::vector<float> images(model.input().size(), 0.5f), logits(model.output().size());
  std::vector<double> times;
  std::size_t changes = 0;
  long waited = 0;
  for (int i = 0; i < 5200; ++i) {
    const float before = model.lambda();
    const double time = microseconds([&] { model.infer(images, 1, logits); });
    if (i == 199) waited = times_waited();
    if (i < 200) continue;
    times.push_back(time);
    changes += model.lambda() != before;
  }
  const long waits = times_waited() - waited;
  std::sort(times.begin(), times.end());
  std::printf("  %-26s %9.1f us, p99 %.1f, longest %.1f; waited %ld times\n", what, times[2500], times[4950],
              times.back(), waits);
  return changes;
}

void time_requests(const std::string& bundle, const floats_rt::Options& options) {
  floats_rt::Model model = floats_rt::Model::load(bundle, options);
  std::printf("infer: %s\n", bundle.c_str());
  show_inferences("nobody at the knob", model);
  std::atomic<bool> ended{false};
  std::thread knob([&] {
    for (int i = 0; !ended; ++i) {
      model.request_lambda(i % 2 ? 0.25f : 0.75f);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  });
  const std::size_t changes = show_inferences("turned every 5 ms", model);
  ended = true;
  knob.join();
  std::printf("  %zu changes of lambda\n", changes);
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 2) {
    std::fputs("usage: floats_rt_bench FIXED [BUNDLE...]\n", stderr);
    return 2;
  }
  floats_rt::Options options;
  options.backend = floats_rt::Backend::onnxruntime;
  options.threads = 1;
  compare_inference(arguments[1], options);
  compare_preprocessing(arguments[1], options);
  for (int i = 2; i < count; ++i) time_switch(arguments[i], options);
  for (int i = 2; i < count; ++i) time_requests(arguments[i], options);
}
