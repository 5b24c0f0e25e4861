// Pillow's BILINEAR: each output is a weighted mean of the inputs below a triangle, which is as wide as two outputs and
// no narrower than two inputs. First along the rows, rounded to 8 bits, then along the columns.
//
// Both are one loop, over kLanes bytes that lie next to each other: the columns of several rows, which were transposed,
// and the rows as they are.
#ifdef __x86_64__
#  include <immintrin.h>
#endif

#include <algorithm>
#include <cmath>
#include <vector>

#include "scaler.hpp"
#include "transpose.hpp"

namespace floats_rt {

namespace {

constexpr std::size_t kLanes = 32;
constexpr int kBits = 22;  // weights are whole numbers over 2^22
constexpr int kHalf = 1 << (kBits - 1);

// The inputs that make each of the outputs, and their weights.
class Filter {
 public:
  struct Output {
    std::size_t first, count;      // inputs
    const std::uint32_t* weights;  // of each
  };

  // Computes in double precision and in the order of Pillow, so that every weight is its.
  void prepare(const Axis& axis) {
    first_.clear();
    start_.assign(1, 0);
    weights_.clear();
    const double scale = static_cast<double>(axis.inputs) / static_cast<double>(axis.outputs);
    const double support = std::max(scale, 1.0), inverse = 1 / support;
    for (std::size_t i = axis.first; i < axis.first + axis.count; ++i) {
      const double centre = (static_cast<double>(i) + 0.5) * scale;
      first_.push_back(static_cast<std::size_t>(std::max(centre - support + 0.5, 0.0)));
      const std::size_t last = std::min(static_cast<std::size_t>(centre + support + 0.5), axis.inputs);
      shares_.clear();
      double total = 0;
      for (std::size_t x = first_.back(); x < last; ++x) {
        shares_.push_back(std::max(0.0, 1 - std::abs((static_cast<double>(x) - centre + 0.5) * inverse)));
        total += shares_.back();
      }
      for (const double share : shares_) {
        weights_.push_back(static_cast<std::uint32_t>(share / total * (1 << kBits) + 0.5));
      }
      start_.push_back(weights_.size());
    }
  }

  std::size_t size() const { return first_.size(); }
  Output operator[](std::size_t i) const { return {first_[i], start_[i + 1] - start_[i], weights_.data() + start_[i]}; }

  // The inputs that are used at all.
  std::size_t begin() const { return first_.front(); }
  std::size_t end() const { return first_.back() + start_.back() - start_[size() - 1]; }

 private:
  std::vector<std::size_t> first_, start_;
  std::vector<std::uint32_t> weights_;
  std::vector<double> shares_;  // of one output
};

// Weighted means of `output.count` times kLanes bytes, which are `stride` apart.
using Weigh = void (*)(const std::uint8_t* in, std::size_t stride, const Filter::Output& output, std::uint8_t* out);

void weigh(const std::uint8_t* in, std::size_t stride, const Filter::Output& output, std::uint8_t* out) {
  std::uint32_t sums[kLanes];
  std::fill_n(sums, kLanes, std::uint32_t{kHalf});
  for (std::size_t i = 0; i < output.count; ++i, in += stride) {
    const std::uint32_t weight = output.weights[i];
    for (std::size_t lane = 0; lane < kLanes; ++lane) sums[lane] += weight * in[lane];
  }
  for (std::size_t lane = 0; lane < kLanes; ++lane) {
    out[lane] = static_cast<std::uint8_t>(std::min(sums[lane] >> kBits, 255u));
  }
}

#ifdef __x86_64__
// Compilers vectorise the above for the oldest x86-64, which multiplies no 32-bit numbers; told to use AVX2, GCC 12
// makes of it what takes twice as long as this.
[[gnu::target("avx2")]] void weigh_by_avx2(const std::uint8_t* in, std::size_t stride, const Filter::Output& output,
                                           std::uint8_t* out) {
  __m256i sums[kLanes / 8];
  for (__m256i& sum : sums) sum = _mm256_set1_epi32(kHalf);
  for (std::size_t i = 0; i < output.count; ++i, in += stride) {
    const __m256i weight = _mm256_set1_epi32(static_cast<int>(output.weights[i]));
    for (std::size_t part = 0; part < kLanes / 8; ++part) {
      const __m128i eight = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(in + 8 * part));
      sums[part] = _mm256_add_epi32(sums[part], _mm256_mullo_epi32(weight, _mm256_cvtepu8_epi32(eight)));
    }
  }
  for (__m256i& sum : sums) sum = _mm256_srli_epi32(sum, kBits);
  // Packing limits numbers to 255, and leaves the lower halves of all sums before the upper ones.
  const __m256i packed =
      _mm256_packus_epi16(_mm256_packus_epi32(sums[0], sums[1]), _mm256_packus_epi32(sums[2], sums[3]));
  const __m256i ordered = _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), ordered);
}

Weigh fastest_weigh() { return __builtin_cpu_supports("avx2") ? weigh_by_avx2 : weigh; }
#else
Weigh fastest_weigh() { return weigh; }
#endif

class Antialiased : public Scaler {
 public:
  void prepare(const Axis& rows, const Axis& columns) override {
    rows_.prepare(rows);
    columns_.prepare(columns);
  }

  const std::uint8_t* scale(const Rows& image) override {
    const std::size_t line = image.channels() * columns_.size();
    pitch_ = (line + kLanes - 1) / kLanes * kLanes;
    narrow_.resize((rows_.end() - rows_.begin()) * pitch_);
    for (std::size_t row = rows_.begin(); row < rows_.end(); row += kLanes) {
      scale_rows(image, row, std::min(kLanes, rows_.end() - row));
    }
    scaled_.resize(rows_.size() * line + kLanes);  // the last lanes of a row are overwritten by the next one
    for (std::size_t y = 0; y < rows_.size(); ++y) {
      const std::uint8_t* const in = narrow_.data() + (rows_[y].first - rows_.begin()) * pitch_;
      for (std::size_t x = 0; x < line; x += kLanes) weigh_(in + x, pitch_, rows_[y], scaled_.data() + y * line + x);
    }
    return scaled_.data();
  }

 private:
  // Scales `count` rows, at most kLanes, horizontally.
  void scale_rows(const Rows& image, std::size_t row, std::size_t count) {
    const std::size_t left = columns_.begin(), used = columns_.end() - left, step = image.step();
    const RowBytes bytes = image.at(row, count, left, used, mixed_);
    upright_.resize(used * step * kLanes);
    transpose(bytes.data, bytes.stride, count, used * step, upright_.data(), kLanes);
    weighed_.resize(image.channels() * columns_.size() * kLanes);
    std::uint8_t* out = weighed_.data();
    for (std::size_t c = 0; c < image.channels(); ++c) {
      for (std::size_t x = 0; x < columns_.size(); ++x, out += kLanes) {
        const std::size_t first = (columns_[x].first - left) * step + image.offset(c);
        weigh_(upright_.data() + first * kLanes, step * kLanes, columns_[x], out);
      }
    }
    std::uint8_t* const rows = narrow_.data() + (row - rows_.begin()) * pitch_;
    transpose(weighed_.data(), kLanes, image.channels() * columns_.size(), count, rows, pitch_);
  }

  const Weigh weigh_ = fastest_weigh();
  Filter rows_, columns_;
  std::size_t pitch_ = 0;                        // bytes from row to row of narrow_, a multiple of kLanes
  std::vector<std::uint8_t> mixed_;              // some rows that were made grey
  std::vector<std::uint8_t> upright_, weighed_;  // some rows as columns, before and after they are scaled
  std::vector<std::uint8_t> narrow_, scaled_;    // all rows that are used, scaled horizontally; and then vertically
};

}  // namespace

std::unique_ptr<Scaler> antialiasing_scaler() { return std::make_unique<Antialiased>(); }

}  // namespace floats_rt
