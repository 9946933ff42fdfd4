// Bilinear upsampling to twice the height and width, pixels centred, borders repeated.
//
// Line 2i takes 3/4 of line i and 1/4 of line i - 1, line 2i + 1 takes 3/4 of i and 1/4 of i + 1.
#pragma once

#include "basics.h"

namespace portraitnet {

struct Bilinear {
  int64_t photos;
  int height, width, channels;  // of the input

  // x (N, H, W, C) -> y (N, 2H, 2W, C).
  void forward(const float* x, float* y, int threads) const {
    const int64_t row = int64_t(width) * channels, rows = photos * 2 * height;
    parallel(threads, [&](int task) {
      std::vector<float> line(row);
      for (int64_t i = rows * task / TASKS; i < rows * (task + 1) / TASKS; ++i) {
        const int64_t photo = i / (2 * height);
        const int out = int(i % (2 * height));
        const float* image = x + photo * height * row;
        blend(image + (out / 2) * row, image + neighbour(out, height) * row, line.data(), row);
        for (int j = 0; j < 2 * width; ++j)
          blend(&line[(j / 2) * channels], &line[neighbour(j, width) * channels],
                y + (i * 2 * width + j) * channels, channels);
      }
    });
  }

  // dy (N, 2H, 2W, C) -> dx (N, H, W, C), the transposed of `forward`.
  void backward(const float* dy, float* dx, int threads) const {
    const int64_t row = 2 * int64_t(width) * channels, rows = photos * height;
    parallel(threads, [&](int task) {
      std::vector<float> line(row);
      for (int64_t i = rows * task / TASKS; i < rows * (task + 1) / TASKS; ++i) {
        const int64_t photo = i / height;
        gather(dy + photo * 2 * height * row, line.data(), int(i % height), height, row);
        for (int j = 0; j < width; ++j)
          gather(line.data(), dx + (i * width + j) * channels, j, width, channels);
      }
    });
  }

 private:
  // The line that gives a quarter of line `out`.
  static int neighbour(int out, int count) {
    return std::clamp(out % 2 ? out / 2 + 1 : out / 2 - 1, 0, count - 1);
  }
  static void blend(const float* near, const float* far, float* out, int64_t size) {
    for (int64_t k = 0; k < size; ++k) out[k] = 0.75f * near[k] + 0.25f * far[k];
  }
  // The gradient of line i from the lines 2i - 1 to 2i + 2; at a border the line is its own
  // neighbour.
  static void gather(const float* dy, float* out, int i, int count, int64_t size) {
    const float* even = dy + 2 * i * size;
    const float* odd = even + size;
    const float* before = i > 0 ? even - size : even;
    const float* after = i < count - 1 ? odd + size : odd;
    for (int64_t k = 0; k < size; ++k)
      out[k] = 0.75f * (even[k] + odd[k]) + 0.25f * (before[k] + after[k]);
  }
};

}  // namespace portraitnet
