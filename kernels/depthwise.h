// 3x3 depthwise convolution, stride 1 or 2, with its neighbours' BatchNorm and activation.
#pragma once

#include "norm.h"

namespace portraitnet {

struct Grid {
  int64_t batch;
  int height, width, channels, stride;
  int out_height() const { return (height - 1) / stride + 1; }
  int out_width() const { return (width - 1) / stride + 1; }
};

// The last three rows that were asked for, each made once by `fill(row, destination)`, with zeros
// left and right.
class RowRing {
 public:
  RowRing(float* memory, int padded_width, int channels)
      : memory_(memory), size_(int64_t(padded_width) * channels), channels_(channels) {
    std::memset(memory, 0, 3 * size_ * sizeof(float));
  }
  // `row` of image `image`, null outside of the image.
  template <class Fill>
  const float* get(int64_t image, int row, int height, Fill fill) {
    if (row < 0 || row >= height) return nullptr;
    const int slot = row % 3;
    float* start = memory_ + slot * size_;
    if (rows_[slot] != image * height + row)
      fill(rows_[slot] = image * height + row, start + channels_);
    return start;
  }

 private:
  float* memory_;
  int64_t size_;
  int channels_;
  int64_t rows_[3] = {-1, -1, -1};
};

// (channels, 9) as Paddle stores it <-> (9, channels).
inline std::vector<float> transpose(const float* matrix, int rows, int columns) {
  std::vector<float> out(size_t(rows) * columns);
  for (int r = 0; r < rows; ++r)
    for (int c = 0; c < columns; ++c) out[size_t(c) * rows + r] = matrix[size_t(r) * columns + c];
  return out;
}

// BLOCK neighbouring output pixels from column j: a weight is loaded once for all of them.
template <int STRIDE, int BLOCK>
void depthwise_block(const float* const rows[3], const float* weight, int j, int channels,
                     float* y) {
  for (int c = 0; c < channels; c += 8) {
    Float8 sum[BLOCK] = {};
    for (int ky = 0; ky < 3; ++ky) {
      if (!rows[ky]) continue;
      const float* x = rows[ky] + int64_t(j) * STRIDE * channels + c;
      const float* w = weight + ky * 3 * channels + c;
      const Float8 w0 = load8(w), w1 = load8(w + channels), w2 = load8(w + 2 * channels);
      Float8 in[(BLOCK - 1) * STRIDE + 3];
#pragma GCC unroll 9
      for (int t = 0; t < (BLOCK - 1) * STRIDE + 3; ++t) in[t] = load8(x + t * channels);
#pragma GCC unroll 4
      for (int t = 0; t < BLOCK; ++t)
        sum[t] += w0 * in[t * STRIDE] + w1 * in[t * STRIDE + 1] + w2 * in[t * STRIDE + 2];
    }
#pragma GCC unroll 4
    for (int t = 0; t < BLOCK; ++t) store(y + int64_t(j + t) * channels + c, sum[t]);
  }
}

template <int STRIDE>
void depthwise_forward(const float* x, const Norm& norm, const float* weight, const Grid& grid,
                       float* y, Sums& sums, int threads) {
  const int channels = grid.channels, out_width = grid.out_width(), out_height = grid.out_height();
  const int64_t in_row = int64_t(grid.width) * channels, out_row = int64_t(out_width) * channels;
  const std::vector<float> taps = transpose(weight, channels, 9);
  const int padded = grid.width + 2;
  parallel(threads, [&](int task) {
    RowRing ring(scratch(3 * int64_t(padded) * channels), padded, channels);
    auto fill = [&](int64_t row, float* out) {
      activate(x + row * in_row, grid.width, channels, norm, out);
    };
    const Range range = task_range(grid.batch * out_height, task);
    for (int64_t row = range.begin; row < range.end; ++row) {
      const float* rows[3];
      for (int ky = 0; ky < 3; ++ky)
        rows[ky] =
            ring.get(row / out_height, int(row % out_height) * STRIDE - 1 + ky, grid.height, fill);
      float* out = y + row * out_row;
      int j = 0;
      for (; j + 4 <= out_width; j += 4)
        depthwise_block<STRIDE, 4>(rows, taps.data(), j, channels, out);
      for (; j < out_width; ++j) depthwise_block<STRIDE, 1>(rows, taps.data(), j, channels, out);
      add_moments(out, out_width, task, sums);
    }
  });
}

// Four neighbouring input pixels from column j: dx and the sums for the nine taps in one go.
// rows[ky] is the gradient row that tap ky joins to this input row, after one zero column.
template <int STRIDE>
void depthwise_backward_block(const float* const rows[3], const float* x, const float* weight,
                              int j, int channels, float* dx, float* dweight) {
  constexpr int FIRST = STRIDE == 1 ? 0 : 1, COUNT = STRIDE == 1 ? 6 : 3;
  for (int c = 0; c < channels; c += 8) {
    Float8 in[4], sum[4] = {};
#pragma GCC unroll 4
    for (int t = 0; t < 4; ++t) in[t] = load8(x + int64_t(j + t) * channels + c);
    for (int ky = 0; ky < 3; ++ky) {
      if (!rows[ky]) continue;
      const float* g = rows[ky] + int64_t(j / STRIDE + FIRST) * channels + c;
      Float8 grad[COUNT];
#pragma GCC unroll 6
      for (int t = 0; t < COUNT; ++t) grad[t] = load8(g + t * channels);
#pragma GCC unroll 3
      for (int kx = 0; kx < 3; ++kx) {
        const int64_t tap = (ky * 3 + kx) * channels + c;
        const Float8 w = load8(weight + tap);
        Float8 dw = load8(dweight + tap);
#pragma GCC unroll 4
        for (int t = 0; t < 4; ++t) {
          const int shift =
              t + 1 - kx;  // input column j + t meets output column (j + shift) / STRIDE
          if (shift % STRIDE) continue;
          const Float8 value = grad[shift / STRIDE + 1 - FIRST];
          sum[t] += w * value;
          dw += in[t] * value;
        }
        store(dweight + tap, dw);
      }
    }
#pragma GCC unroll 4
    for (int t = 0; t < 4; ++t) store(dx + int64_t(j + t) * channels + c, sum[t]);
  }
}

template <int STRIDE>
void depthwise_backward(const float* dz, const float* y, const Gradient& gradient, const float* x,
                        const Norm& norm, const float* weight, const Grid& grid, float* dx,
                        Sums& sums, float* dweight, int threads) {
  const int channels = grid.channels, out_width = grid.out_width(), out_height = grid.out_height();
  const int64_t in_row = int64_t(grid.width) * channels, out_row = int64_t(out_width) * channels;
  const std::vector<float> taps = transpose(weight, channels, 9);
  Partials partials(size_t(9) * channels);
  const int whole = (grid.width + 3) / 4 * 4,
            padded = whole + 2;  // blocks of four columns, zeros beyond the image
  parallel(threads, [&](int task) {
    float* active = scratch((2 * int64_t(whole) + 3 * int64_t(padded)) * channels);
    float* product = active + int64_t(whole) * channels;
    std::memset(active, 0, int64_t(whole) * channels * sizeof(float));
    RowRing ring(product + int64_t(whole) * channels, padded, channels);
    auto fill = [&](int64_t row, float* out) {
      raw_gradient(dz + row * out_row, y + row * out_row, out_width, channels, gradient, out);
    };
    const Range range = task_range(grid.batch * grid.height, task);
    for (int64_t row = range.begin; row < range.end; ++row) {
      const float* rows[3];
      for (int ky = 0; ky < 3; ++ky) {
        const int above = int(row % grid.height) + 1 - ky;
        rows[ky] = above % STRIDE ? nullptr
                                  : ring.get(row / grid.height, above / STRIDE, out_height, fill);
      }
      activate(x + row * in_row, grid.width, channels, norm, active);
      for (int j = 0; j < whole; j += 4)
        depthwise_backward_block<STRIDE>(rows, active, taps.data(), j, channels, product,
                                         partials.task(task));
      if (norm.scale)
        store_gradient(product, active, x + row * in_row, grid.width, norm, dx + row * in_row, task,
                       sums);
      else
        std::memcpy(dx + row * in_row, product, in_row * sizeof(float));
    }
  });
  std::vector<float> total(size_t(9) * channels);
  partials.total(threads, total.data());
  std::memcpy(dweight, transpose(total.data(), 9, channels).data(), total.size() * sizeof(float));
}

}  // namespace portraitnet
