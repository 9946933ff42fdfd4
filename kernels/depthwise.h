// 3x3 depthwise convolution of stride 1 or 2, fused with BatchNorm and activation of the layers
// before and after it.
#pragma once

#include "norm.h"
#include "rows.h"

namespace portraitnet {

struct Grid {
  int64_t batch;
  int height, width, channels, stride;
  int out_height() const { return (height - 1) / stride + 1; }
  int out_width() const { return (width - 1) / stride + 1; }
};

// The sums over the nine taps `w` for one vector of channels and BLOCK neighbouring output pixels.
// The input `rows` are read from channel `c` of the block's first column on.
template <int STRIDE, int BLOCK, class V>
inline void depthwise_block(const float* const rows[3], const V (&w)[9], int64_t c, int channels,
                            V (&sum)[BLOCK]) {
#pragma GCC unroll 3
  for (int ky = 0; ky < 3; ++ky) {
    if (!rows[ky]) continue;
    V in[(BLOCK - 1) * STRIDE + 3];
#pragma GCC unroll 9
    for (int t = 0; t < (BLOCK - 1) * STRIDE + 3; ++t) in[t] = load<V>(rows[ky] + c + t * channels);
#pragma GCC unroll 4
    for (int t = 0; t < BLOCK; ++t)
#pragma GCC unroll 3
      for (int kx = 0; kx < 3; ++kx) sum[t] += w[ky * 3 + kx] * in[t * STRIDE + kx];
  }
}

template <int STRIDE, class X, class Y>
void depthwise_forward(const X* x, const Norm& norm, const float* weight, const Grid& grid, Y* y,
                       Sums& sums, int threads) {
  const int channels = grid.channels, out_width = grid.out_width(), out_height = grid.out_height();
  const int64_t in_row = int64_t(grid.width) * channels, out_row = int64_t(out_width) * channels;
  const std::vector<float> taps = transpose(weight, channels, 9);
  const int padded = grid.width + 2;
  parallel(threads, [&](int task) {
    RowRing<float> ring(scratch(3 * int64_t(padded) * channels), 3, padded, channels);
    const auto make = [&](int64_t row, float* out) {
      fill(grid.width, channels, activated(x + row * in_row, norm), out);
    };
    RowSums row_sums(channels);
    const Range range = task_range(grid.batch * out_height, task);
    for (int64_t row = range.begin; row < range.end; ++row) {
      const float* rows[3];
      for (int ky = 0; ky < 3; ++ky)
        rows[ky] =
            ring.get(row / out_height, int(row % out_height) * STRIDE - 1 + ky, grid.height, make);
      Y* out = y + row * out_row;
      each_vector(channels, [&](auto vector, int c) {
        using V = decltype(vector);
        V w[9], one = {}, two = {};
#pragma GCC unroll 9
        for (int tap = 0; tap < 9; ++tap) w[tap] = load<V>(&taps[tap * channels + c]);
        auto block = [&](auto size, int j) {
          V sum[size.value] = {};
          depthwise_block<STRIDE, size.value>(rows, w, int64_t(j) * STRIDE * channels + c, channels,
                                              sum);
#pragma GCC unroll 4
          for (int t = 0; t < size.value; ++t) {
            store(out + int64_t(j + t) * channels + c, sum[t]);
            one += sum[t];
            two += sum[t] * sum[t];
          }
        };
        int j = 0;
        for (; j + 4 <= out_width; j += 4) block(std::integral_constant<int, 4>(), j);
        for (; j < out_width; ++j) block(std::integral_constant<int, 1>(), j);
        accumulate(row_sums.one + c, one), accumulate(row_sums.two + c, two);
      });
      row_sums.flush(task, sums);
    }
  });
}

// One vector of channels and BLOCK neighbouring input pixels from column j on, with the values
// `in`. The gradients of the outputs that depend on them give the gradients `sum` of the values and
// `dw` of the taps. rows[ky] is the gradient row that tap ky connects with this input row, after
// one zero column.
template <int STRIDE, int BLOCK, class V>
inline void depthwise_backward_block(const float* const rows[3], const V (&in)[BLOCK],
                                     const V (&w)[9], int j, int c, int channels, V (&sum)[BLOCK],
                                     V (&dw)[9]) {
  constexpr int FIRST = STRIDE - 1, COUNT = STRIDE == 1 ? BLOCK + 2 : BLOCK / 2 + 1;
#pragma GCC unroll 3
  for (int ky = 0; ky < 3; ++ky) {
    if (!rows[ky]) continue;
    const float* g = rows[ky] + int64_t(j / STRIDE + FIRST) * channels + c;
    V grad[COUNT];
#pragma GCC unroll 6
    for (int t = 0; t < COUNT; ++t) grad[t] = load<V>(g + t * channels);
#pragma GCC unroll 4
    for (int t = 0; t < BLOCK; ++t)
#pragma GCC unroll 3
      for (int kx = 0; kx < 3; ++kx) {
        const int shift = t + 1 - kx;  // output column (j + shift) / STRIDE reads column j + t
        if (shift % STRIDE) continue;
        const V value = grad[shift / STRIDE + 1 - FIRST];
        sum[t] += w[ky * 3 + kx] * value;
        dw[ky * 3 + kx] += in[t] * value;
      }
  }
}

template <int STRIDE, class X, class Y>
void depthwise_backward(const Y* dz, const Y* y, const Gradient& gradient, const X* x,
                        const Norm& norm, const float* weight, const Grid& grid, X* dx, Sums& sums,
                        float* dweight, int threads) {
  const int channels = grid.channels, out_width = grid.out_width(), out_height = grid.out_height();
  const int64_t in_row = int64_t(grid.width) * channels, out_row = int64_t(out_width) * channels;
  const std::vector<float> taps = transpose(weight, channels, 9);
  const float low = norm.low, high = norm.high;
  Partials partials(size_t(9) * channels);
  const int padded = out_width + 2;
  parallel(threads, [&](int task) {
    RowRing<float> ring(scratch(3 * int64_t(padded) * channels), 3, padded, channels);
    const auto make = [&](int64_t row, float* out) {
      fill(out_width, channels, raw_gradient(dz + row * out_row, y + row * out_row, gradient), out);
    };
    float* task_dweight = partials.zeroed_task(task);
    RowSums row_sums(channels);
    const Range range = task_range(grid.batch * grid.height, task);
    for (int64_t row = range.begin; row < range.end; ++row) {
      const float* rows[3];
      for (int ky = 0; ky < 3; ++ky) {
        const int above = int(row % grid.height) + 1 - ky;
        rows[ky] = above % STRIDE ? nullptr
                                  : ring.get(row / grid.height, above / STRIDE, out_height, make);
      }
      const X* raw = x + row * in_row;
      X* out = dx + row * in_row;
      each_vector(channels, [&](auto vector, int c) {
        using V = decltype(vector);
        V w[9], dw[9], scale, shift, mean, one = {}, two = {};
#pragma GCC unroll 9
        for (int tap = 0; tap < 9; ++tap) {
          w[tap] = load<V>(&taps[tap * channels + c]);
          dw[tap] = load<V>(task_dweight + tap * channels + c);
        }
        if (norm.scale) {
          scale = load<V>(norm.scale + c);
          shift = load<V>(norm.shift + c);
          mean = load<V>(norm.mean + c);
        }
        auto block = [&](auto size, int j) {
          V in[size.value], value[size.value], sum[size.value] = {};
#pragma GCC unroll 2
          for (int t = 0; t < size.value; ++t) {
            value[t] = in[t] = load<V>(raw + int64_t(j + t) * channels + c);
            if (norm.scale) value[t] = clip(in[t] * scale + shift, low, high);
          }
          depthwise_backward_block<STRIDE, size.value>(rows, value, w, j, c, channels, sum, dw);
#pragma GCC unroll 2
          for (int t = 0; t < size.value; ++t) {
            if (norm.scale) {  // as in PassedGradient
              sum[t] = where_between(value[t], low, high, sum[t]);
              one += sum[t];
              two += sum[t] * (in[t] - mean);
            }
            store(out + int64_t(j + t) * channels + c, sum[t]);
          }
        };
        int j = 0;
        for (; j + 2 <= grid.width; j += 2) block(std::integral_constant<int, 2>(), j);
        if (j < grid.width) block(std::integral_constant<int, 1>(), j);
#pragma GCC unroll 9
        for (int tap = 0; tap < 9; ++tap) store(task_dweight + tap * channels + c, dw[tap]);
        accumulate(row_sums.one + c, one), accumulate(row_sums.two + c, two);
      });
      if (norm.scale) row_sums.flush(task, sums);
    }
  });
  std::vector<float> total(size_t(9) * channels);
  partials.total(threads, total.data());
  std::memcpy(dweight, transpose(total.data(), 9, channels).data(), total.size() * sizeof(float));
}

}  // namespace portraitnet
