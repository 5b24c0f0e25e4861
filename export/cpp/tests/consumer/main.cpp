// The ten lines of the README: usage: consumer BUNDLE
#include <floats_rt/floats_rt.hpp>
#include <iostream>

int main(int, char** arguments) try {
  floats_rt::Options options;
  options.backend = floats_rt::Backend::onnxruntime;
  floats_rt::Model model = floats_rt::Model::load(arguments[1], options);
  model.set_lambda(0.5f);
  std::vector<float> image(model.input().size(), 0.5f), logits(model.output().size());
  model.infer(image, 1, logits);
  std::cout << model.labels()[0] << ": " << logits[0] << '\n';
} catch (const floats_rt::Error& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
