// Images become what Python makes of them, to the bit, whatever the order of their bytes.
#include <algorithm>
#include <cstring>

#include "bundle_copy.hpp"
#include "image.hpp"
#include "support.hpp"

namespace floats_rt {

namespace {

// What make_frames.py wrote.
class Frames {
 public:
  struct Case {
    std::int32_t height, width, channels, wanted_height, wanted_width, resize, covered_height, covered_width, antialias,
        colours, image, expected;

    Preprocessing rule() const {
      return {size(wanted_height), size(wanted_width), static_cast<Resize>(resize),  size(covered_height),
              size(covered_width), antialias != 0,     static_cast<Colours>(colours)};
    }
    std::size_t pixels() const { return size(height) * size(width); }
    std::size_t floats() const {
      return (rule().colours == Colours::grey ? 1 : 3) * size(wanted_height * wanted_width);
    }

    static std::size_t size(std::int32_t number) { return static_cast<std::size_t>(number); }
  };

  Frames() : file_(file_bytes(bundle_path("frames.safetensors"))), tensors_(read_safetensors(file_)) {
    const Span<const std::uint8_t> bytes = tensors_.at("cases").bytes;
    cases_.resize(bytes.size() / sizeof(Case));
    std::memcpy(cases_.data(), bytes.data(), bytes.size());
  }

  const std::vector<Case>& cases() const { return cases_; }
  const std::uint8_t* image(const Case& of) const { return tensors_.at("images").bytes.data() + of.image; }
  std::vector<float> expected(const Case& of) const {
    const std::uint8_t* const first = tensors_.at("expected").bytes.data() + of.expected;
    std::vector<float> pixels(first, first + of.floats());
    for (float& pixel : pixels) pixel /= 255;
    return pixels;
  }

 private:
  Bytes file_;
  Tensors tensors_;
  std::vector<Case> cases_;
};

// A copy of an image of red, green and blue, or of grey, in other colours, with `gap` bytes between its rows, which end
// where the memory ends.
struct Copy {
  std::vector<std::uint8_t> bytes;
  ImageView view;

  Copy(const std::uint8_t* pixels, std::size_t height, std::size_t width, Colours colours, std::size_t gap) {
    const std::size_t step = bytes_per_pixel(colours), stride = width * step + gap;
    const bool is_swapped = colours == Colours::bgr || colours == Colours::bgra;
    bytes.assign(stride * height - gap, 99);
    for (std::size_t i = 0; i < height * width; ++i) {
      std::uint8_t* const to = bytes.data() + i / width * stride + i % width * step;
      if (step == 1) to[0] = pixels[i];
      for (std::size_t c = 0; step > 1 && c < 3; ++c) to[is_swapped ? 2 - c : c] = pixels[3 * i + c];
    }
    view = {bytes.data(), height, width, colours, gap ? stride : 0};
  }
};

std::vector<float> preprocessed(const Preprocessing& rule, const ImageView& image) {
  const std::size_t channels = rule.colours == Colours::grey ? 1 : 3;
  std::vector<float> pixels(channels * rule.height * rule.width, -1);
  Preprocessor preprocessor(rule);
  preprocessor.check(image);
  preprocessor.run(image, pixels.data());
  return pixels;
}

const Preprocessing kSmall{8, 8, Resize::short_side, 8, 8, true, Colours::rgb};

Model load(const std::filesystem::path& bundle) {
  Options options;
  options.backend = Backend::onnxruntime;
  options.threads = 1;
  return Model::load(bundle.string(), options);
}

ImageView noise(std::vector<std::uint8_t>& bytes, std::size_t height, std::size_t width) {
  bytes.resize(height * width * 3);
  std::uint32_t state = 1;
  for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>((state = state * 1664525 + 1013904223) >> 24);
  return {bytes.data(), height, width, Colours::bgr};
}

}  // namespace

TEST_CASE("every image is Python's to the bit, in every order of its bytes") {
  const Frames frames;
  REQUIRE(frames.cases().size() >= 500);
  for (std::size_t i = 0; i < frames.cases().size(); ++i) {
    CAPTURE(i);
    const Frames::Case& of = frames.cases()[i];
    const std::vector<float> expected = frames.expected(of);
    const std::size_t height = Frames::Case::size(of.height), width = Frames::Case::size(of.width);
    if (of.channels == 1) {
      CHECK(preprocessed(of.rule(), Copy(frames.image(of), height, width, Colours::grey, i % 3).view) == expected);
      continue;
    }
    for (const Colours colours : {Colours::rgb, Colours::bgr, Colours::rgba, Colours::bgra}) {
      CAPTURE(static_cast<int>(colours));
      CHECK(preprocessed(of.rule(), Copy(frames.image(of), height, width, colours, i % 3).view) == expected);
    }
  }
}

TEST_CASE("images of other sizes and colours in between change nothing") {
  const Frames frames;
  Preprocessor preprocessor(kSmall);
  for (std::size_t round = 0; round < 2; ++round) {
    for (std::size_t i = 2; i < 60; ++i) {
      CAPTURE(i);
      const Frames::Case& of = frames.cases()[i];
      const ImageView image{frames.image(of), Frames::Case::size(of.height), Frames::Case::size(of.width),
                            of.channels == 1 ? Colours::grey : Colours::bgr};
      std::vector<float> pixels(3 * 8 * 8);
      preprocessor.run(image, pixels.data());
      CHECK(pixels == preprocessed(kSmall, image));
    }
  }
}

TEST_CASE("what is no image is refused with what to do") {
  const std::vector<std::uint8_t> bytes(100 * 100 * 3);
  const ImageView good{bytes.data(), 10, 20, Colours::rgb};
  const auto refused = [](const Preprocessing& rule, const ImageView& image) {
    return code_of([&] { Preprocessor(rule).check(image); }) == ErrorCode::bad_shape;
  };
  CHECK(preprocessed(kSmall, good).size() == 3 * 8 * 8);
  const auto changed = [&](const auto& change) {
    ImageView image = good;
    change(image);
    return image;
  };
  CHECK(refused(kSmall, changed([](ImageView& image) { image.data = nullptr; })));
  CHECK(refused(kSmall, changed([](ImageView& image) { image.height = 0; })));
  CHECK(refused(kSmall, changed([](ImageView& image) { image.width = 0; })));
  CHECK(refused(kSmall, changed([](ImageView& image) { image.height = 65536; })));
  CHECK(refused(kSmall, changed([](ImageView& image) { image.width = ~std::size_t{0}; })));
  CHECK(refused(kSmall, changed([](ImageView& image) { image.colours = static_cast<Colours>(5); })));
  CHECK(refused(kSmall, changed([](ImageView& image) { image.stride = 59; })));
  CHECK(refused(kSmall, changed([](ImageView& image) { image.stride = PTRDIFF_MAX / 10 + 1; })));
  Preprocessor(kSmall).check(changed([](ImageView& image) { image.stride = 60; }));
}

TEST_CASE("an image that is too thin to be scaled is refused, as in Python") {
  const std::uint8_t pixel{};
  const auto thin = [&](std::size_t height, std::size_t width, Resize resize) {
    const Preprocessing rule{2048, 2048, resize, 2048, 2048, true, Colours::grey};
    Preprocessor(rule).check({&pixel, height, width, Colours::grey});
  };
  // Scaled to 2048 x 43690, 89,477,120 pixels, and to 2048 x 43711.
  thin(3, 64, Resize::short_side);
  CHECK(code_of([&] { thin(300, 6403, Resize::short_side); }) == ErrorCode::bad_shape);
  CHECK(code_of([&] { thin(1, 65535, Resize::short_side); }) == ErrorCode::bad_shape);
  CHECK(code_of([&] { thin(65535, 1, Resize::short_side); }) == ErrorCode::bad_shape);
  thin(1, 65535, Resize::pad);
  thin(43690, 1, Resize::squash);  // 43690 x 2048 for a while
  CHECK(code_of([&] { thin(43692, 1, Resize::squash); }) == ErrorCode::bad_shape);
}

TEST_CASE("a model runs images as it runs what it makes of them") {
  for (const std::string name : {"bound", "fixed"}) {
    CAPTURE(name);
    Model model = load(bundle_path(name));
    const std::size_t size = model.input().size(), classes = model.output().size();
    std::vector<std::uint8_t> bytes[2];
    const ImageView images[] = {noise(bytes[0], 50, 37), noise(bytes[1], 16, 300)};
    std::vector<float> pixels(2 * size), logits(2 * classes), wanted(2 * classes);
    for (std::size_t i = 0; i < 2; ++i) {
      model.preprocess(images[i], Span<float>(pixels.data() + i * size, size));
      CHECK(std::vector<float>(&pixels[i * size], &pixels[i * size] + size) ==
            preprocessed(model.preprocessing(), images[i]));
    }
    model.infer(pixels, 2, wanted);
    model.infer(images, logits);
    CHECK(logits == wanted);
    std::vector<float> one(classes), wanted_one(classes);
    model.infer(Span<const float>(pixels.data(), size), 1, wanted_one);
    Model clone = model.clone();
    clone.infer(images[0], one);
    CHECK(one == wanted_one);
  }
}

TEST_CASE("a model preprocesses as its manifest says") {
  BundleCopy bundle("bound");
  bundle.change_manifest([](nlohmann::json& manifest) {
    manifest["input"]["preprocessing"]["resize"] = "pad";
    manifest["input"]["preprocessing"]["antialias"] = false;
  });
  Model model = load(bundle.path());
  std::vector<std::uint8_t> bytes;
  const ImageView image = noise(bytes, 50, 37);
  std::vector<float> pixels(model.input().size());
  model.preprocess(image, pixels);
  CHECK(model.preprocessing().resize == Resize::pad);
  CHECK(pixels == preprocessed({16, 16, Resize::pad, 16, 16, false, Colours::grey}, image));
  CHECK(pixels != preprocessed({16, 16, Resize::pad, 16, 16, true, Colours::grey}, image));
}

TEST_CASE("a model refuses spans and images that do not go together, and runs nothing") {
  Model model = load(bundle_path("fixed"));
  std::vector<std::uint8_t> bytes;
  const ImageView images[] = {noise(bytes, 50, 37), {nullptr, 50, 37, Colours::rgb}};
  std::vector<float> logits(2 * model.output().size(), -1), pixels(model.input().size());
  CHECK(code_of([&] { model.infer(images, logits); }) == ErrorCode::bad_shape);
  CHECK(code_of([&] { model.infer(images[0], logits); }) == ErrorCode::bad_shape);
  CHECK(code_of([&] { model.infer(Span<const ImageView>(), Span<float>()); }) == ErrorCode::bad_shape);
  CHECK(code_of([&] { model.preprocess(images[0], logits); }) == ErrorCode::bad_shape);
  CHECK(code_of([&] { model.preprocess(images[1], pixels); }) == ErrorCode::bad_shape);
  CHECK(logits == std::vector<float>(logits.size(), -1));
}

}  // namespace floats_rt
