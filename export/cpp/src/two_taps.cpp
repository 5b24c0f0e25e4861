// Interpolation between the two nearest pixels in each direction, in whole numbers.
#include <algorithm>
#include <vector>

#include "scaler.hpp"

namespace floats_rt {

namespace {

constexpr std::uint64_t kOne = 2048;  // weights are whole numbers over this

// The two inputs that make an output, and the weight of the second.
struct Taps {
  std::size_t before, after;
  std::uint32_t weight;
};

void find_taps(const Axis& axis, std::vector<Taps>& taps) {
  taps.clear();
  const std::uint64_t inputs = axis.inputs, outputs = axis.outputs;
  for (std::uint64_t i = axis.first; i < axis.first + axis.count; ++i) {
    const std::uint64_t beyond = std::max((2 * i + 1) * inputs, outputs) - outputs;
    const std::uint64_t position = std::min(beyond, 2 * outputs * (inputs - 1));
    const std::uint64_t before = position / (2 * outputs), part = position % (2 * outputs);
    const std::uint64_t weight = (part * kOne + outputs) / (2 * outputs);
    taps.push_back({before, std::min(before + 1, inputs - 1), static_cast<std::uint32_t>(weight)});
  }
}

class TwoTaps : public Scaler {
 public:
  void prepare(const Axis& rows, const Axis& columns) override {
    find_taps(rows, rows_);
    find_taps(columns, columns_);
  }

  const std::uint8_t* scale(const Rows& image) override {
    scaled_.resize(rows_.size() * image.channels() * columns_.size());
    std::uint8_t* out = scaled_.data();
    const std::size_t left = columns_.front().before, used = columns_.back().after + 1 - left, step = image.step();
    for (const Taps& row : rows_) {
      const std::uint8_t* const upper = image.at(row.before, 1, left, used, upper_).data;
      const std::uint8_t* const lower = image.at(row.after, 1, left, used, lower_).data;
      for (std::size_t c = 0; c < image.channels(); ++c) {
        for (const Taps& column : columns_) {
          const std::size_t a = (column.before - left) * step + image.offset(c);
          const std::size_t b = (column.after - left) * step + image.offset(c);
          const std::uint32_t above = between(upper[a], upper[b], column.weight);
          const std::uint32_t below = between(lower[a], lower[b], column.weight);
          *out++ = static_cast<std::uint8_t>((between(above, below, row.weight) + kOne * kOne / 2) / (kOne * kOne));
        }
      }
    }
    return scaled_.data();
  }

 private:
  static constexpr std::uint32_t between(std::uint32_t before, std::uint32_t after, std::uint32_t weight) {
    return before * (static_cast<std::uint32_t>(kOne) - weight) + after * weight;
  }

  std::vector<Taps> rows_, columns_;
  std::vector<std::uint8_t> upper_, lower_, scaled_;  // rows that were made grey; what is kept
};

}  // namespace

std::unique_ptr<Scaler> two_taps_scaler() { return std::make_unique<TwoTaps>(); }

}  // namespace floats_rt
