// Rows of an image for the 3x3 and 4x4 convolutions, which read several rows at a time.
#pragma once

#include "basics.h"

namespace portraitnet {

// The last `count` requested rows. `make(row, destination)` computes each row once. A column of
// zeros lies on the left and on the right.
template <class T>
class RowRing {
 public:
  static size_t size(int count, int padded_width, int channels) {
    return size_t(count) * padded_width * channels;
  }
  // `memory` holds size(...) values.
  RowRing(T* memory, int count, int padded_width, int channels)
      : memory_(memory),
        size_(int64_t(padded_width) * channels),
        channels_(channels),
        rows_(count, -1) {
    std::memset(memory, 0, count * size_ * sizeof(T));
  }
  // `row` of image `image`; null outside the image.
  template <class Make>
  const T* get(int64_t image, int row, int height, Make make) {
    if (row < 0 || row >= height) return nullptr;
    const int slot = row % int(rows_.size());
    T* start = memory_ + slot * size_;
    if (rows_[slot] != image * height + row)
      make(rows_[slot] = image * height + row, start + channels_);
    return start;
  }

 private:
  T* memory_;
  int64_t size_;
  int channels_;
  std::vector<int64_t> rows_;
};

// The same rows, and the factors of a sum over their pixels. For bfloat16 a factor pairs each value
// with the one `step` columns further right, so the row needs as many more columns of zeros.
template <class T>
class FactorRing {
 public:
  typedef typename Factor<T>::type Pack;
  struct Row {
    const T* values;
    const Pack* factors;
  };
  static size_t size(int count, int padded_width, int channels) {  // floats
    return 2 * RowRing<T>::size(count, padded_width, channels);
  }
  FactorRing(float* memory, int count, int padded_width, int channels, int step)
      : values_(reinterpret_cast<T*>(memory), count, padded_width, channels),
        factors_(reinterpret_cast<Pack*>(memory) + values_.size(count, padded_width, channels),
                 count, padded_width, channels),
        count_(int64_t(padded_width - step) * channels),
        step_(int64_t(step) * channels),
        channels_(channels) {}
  template <class Make>
  Row get(int64_t image, int row, int height, Make make) {
    const T* values = values_.get(image, row, height, make);
    if constexpr (PACK<T> == 1)
      return {values, values};
    else
      return {values, factors_.get(image, row, height, [&](int64_t, Pack* out) {
                for (int64_t i = 0; i < count_; ++i)
                  out[i - channels_].bits =
                      values[i].bits | uint32_t(values[i + step_].bits) << 16;
              })};
  }

 private:
  RowRing<T> values_;
  RowRing<Pack> factors_;
  int64_t count_, step_;
  int channels_;
};

}  // namespace portraitnet
