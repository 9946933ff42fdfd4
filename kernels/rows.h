// Rows of an image for the 3x3 and 4x4 convolutions, which look at several at a time.
#pragma once

#include "basics.h"

namespace portraitnet {

// The last `count` rows that were asked for, each made once by `make(row, destination)`, with a
// column of zeros left and right.
class RowRing {
 public:
  // `memory` holds count * padded_width * channels floats.
  RowRing(float* memory, int count, int padded_width, int channels)
      : memory_(memory),
        size_(int64_t(padded_width) * channels),
        channels_(channels),
        rows_(count, -1) {
    std::memset(memory, 0, count * size_ * sizeof(float));
  }
  // `row` of image `image`, null outside of the image.
  template <class Make>
  const float* get(int64_t image, int row, int height, Make make) {
    if (row < 0 || row >= height) return nullptr;
    const int slot = row % int(rows_.size());
    float* start = memory_ + slot * size_;
    if (rows_[slot] != image * height + row)
      make(rows_[slot] = image * height + row, start + channels_);
    return start;
  }

 private:
  float* memory_;
  int64_t size_;
  int channels_;
  std::vector<int64_t> rows_;
};

}  // namespace portraitnet
