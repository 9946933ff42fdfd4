// PortraitNetLite's layers on (N, C, H, W): depthwise convolution of kernel 3 or 5, 1x1 convolution,
// and bias with activation, for which Paddle needs two passes over memory and much longer.
#pragma once

#include "gemm.h"

namespace portraitnet {

struct Planes {
  int64_t count;  // N * C
  int channels, height, width, kernel, stride, before;  // `before`: lines of padding above and left
  int out_height() const { return height / stride; }
  int out_width() const { return width / stride; }

  // x (N, C, H, W), weight (C, 1, k, k) -> y (N, C, H / stride, W / stride).
  void forward(const float* x, const float* weight, float* y, int threads) const {
    parallel(threads, [&](int task) {
      const Range range = task_range(count, task);
      for (int64_t plane = range.begin; plane < range.end; ++plane) {
        const float* taps = weight + plane % channels * kernel * kernel;
        const float* in = padded(x + plane * height * width, height, width, before);
        float* out = y + plane * out_height() * out_width();
        with_sizes([&](auto step, auto side) {
          correlate<step.value, side.value>(in, taps, 1, out_height(), out_width(), out);
        });
      }
    });
  }

  void backward(const float* dy, const float* x, const float* weight, float* dx, float* dweight,
                int threads) const {
    const int area = kernel * kernel;
    Partials partials(size_t(area) * channels);
    parallel(threads, [&](int task) {
      float* sums = partials.zeroed_task(task);
      const Range range = task_range(count, task);
      for (int64_t plane = range.begin; plane < range.end; ++plane) {
        const float* taps = weight + plane % channels * area;
        float* dtaps = sums + plane % channels * area;
        const float* gradient = dy + plane * out_height() * out_width();
        const float* in = padded(x + plane * height * width, height, width, before);
        float* out = dx + plane * height * width;
        with_sizes([&](auto step, auto side) {
          products<step.value, side.value>(in, gradient, dtaps);
        });
        if (stride == 1) {  // a correlation with the taps in reverse order
          const float* around = padded(gradient, height, width, kernel - 1 - before);
          with_sizes([&](auto, auto side) {
            correlate<1, side.value>(around, taps + area - 1, -1, height, width, out);
          });
        } else {
          scatter(gradient, taps, out);
        }
      }
    });
    partials.total(threads, dweight);
  }

 private:
  // Calls work(stride, kernel) with constants, which let the compiler unroll the loops.
  template <class Work>
  void with_sizes(Work work) const {
    typedef std::integral_constant<int, 1> One;
    typedef std::integral_constant<int, 2> Two;
    typedef std::integral_constant<int, 3> Three;
    typedef std::integral_constant<int, 5> Five;
    if (stride == 1)
      kernel == 3 ? work(One(), Three()) : work(One(), Five());
    else
      kernel == 3 ? work(Two(), Three()) : work(Two(), Five());
  }

  static constexpr int STEP = 8;  // outputs are computed in vectors; the last may be too long
  int line(int columns) const { return columns + kernel + stride * STEP; }

  // The plane with zeros around it, in lines of `line(columns)`.
  float* padded(const float* plane, int rows, int columns, int first) const {
    const int pitch = line(columns), all = rows + kernel;
    float* out = scratch(size_t(all) * pitch);
    std::fill(out, out + size_t(all) * pitch, 0.0f);
    for (int row = 0; row < rows; ++row)
      std::copy(plane + row * columns, plane + (row + 1) * columns,
                out + (row + first) * pitch + first);
    return out;
  }

  // out[i][j] = sum of taps[(ky * KERNEL + kx) * direction] * in[i * STRIDE + ky][j * STRIDE + kx].
  template <int STRIDE, int KERNEL>
  void correlate(const float* in, const float* taps, int direction, int rows, int columns,
                 float* out) const {
    const int pitch = line(columns * STRIDE);
    for (int i = 0; i < rows; ++i)
      for (int j = 0; j < columns; j += STEP) {
        float sums[STEP] = {};
        const float* corner = in + i * STRIDE * pitch + j * STRIDE;
        for (int ky = 0; ky < KERNEL; ++ky)
          for (int kx = 0; kx < KERNEL; ++kx) {
            const float tap = taps[(ky * KERNEL + kx) * direction];
            const float* from = corner + ky * pitch + kx;
            for (int t = 0; t < STEP; ++t) sums[t] += tap * from[t * STRIDE];
          }
        std::copy(sums, sums + std::min(STEP, columns - j), out + i * columns + j);
      }
  }

  // dtaps[ky][kx] += sum of gradient[i][j] * in[i * STRIDE + ky][j * STRIDE + kx].
  template <int STRIDE, int KERNEL>
  void products(const float* in, const float* gradient, float* dtaps) const {
    const int rows = out_height(), columns = out_width(), pitch = line(width);
    const int whole = (columns + STEP - 1) / STEP * STEP;
    float* zeros_after = scratch<2>(whole);
    std::fill(zeros_after, zeros_after + whole, 0.0f);
    float sums[KERNEL * KERNEL * STEP] = {};
    for (int i = 0; i < rows; ++i) {
      std::copy(gradient + i * columns, gradient + (i + 1) * columns, zeros_after);
      for (int ky = 0; ky < KERNEL; ++ky)
        for (int kx = 0; kx < KERNEL; ++kx) {
          float sum[STEP] = {};
          const float* from = in + (i * STRIDE + ky) * pitch + kx;
          for (int j = 0; j < whole; j += STEP)
            for (int t = 0; t < STEP; ++t) sum[t] += zeros_after[j + t] * from[(j + t) * STRIDE];
          float* total = &sums[(ky * KERNEL + kx) * STEP];
          for (int t = 0; t < STEP; ++t) total[t] += sum[t];
        }
    }
    for (int tap = 0; tap < KERNEL * KERNEL; ++tap)
      for (int t = 0; t < STEP; ++t) dtaps[tap] += sums[tap * STEP + t];
  }

  // The gradient of the input for stride 2.
  void scatter(const float* gradient, const float* taps, float* out) const {
    const int pitch = line(width), all = height + kernel;
    float* sums = scratch<2>(size_t(all) * pitch);
    std::fill(sums, sums + size_t(all) * pitch, 0.0f);
    for (int i = 0; i < out_height(); ++i)
      for (int ky = 0; ky < kernel; ++ky)
        for (int kx = 0; kx < kernel; ++kx) {
          const float tap = taps[ky * kernel + kx];
          float* to = sums + (i * 2 + ky) * pitch + kx;
          const float* from = gradient + i * out_width();
          for (int j = 0; j < out_width(); ++j) to[j * 2] += tap * from[j];
        }
    for (int row = 0; row < height; ++row) {
      const float* from = sums + (row + before) * pitch + before;
      std::copy(from, from + width, out + row * width);
    }
  }
};

// 1x1 convolution of `photos` photos of `area` pixels, (N, I, area) -> (N, O, area).
struct Mix {
  int64_t photos;
  int input_c, output_c, area;

  // weight (O, I)
  void forward(const float* x, const float* weight, float* y, int threads) const {
    parallel(threads, [&](int task) {
      const Range range = task_range(photos, task);
      for (int64_t n = range.begin; n < range.end; ++n)
        product(weight, input_c, 1, output_c, input_c, x + n * input_c * area,
                y + n * output_c * area);
    });
  }

  void backward(const float* dy, const float* x, const float* weight, float* dx, float* dweight,
                int threads) const {
    Partials partials(size_t(output_c) * input_c);
    parallel(threads, [&](int task) {
      float* sums = partials.zeroed_task(task);
      float* turned = scratch(size_t(CHUNK) * input_c);
      const Range range = task_range(photos, task);
      for (int64_t n = range.begin; n < range.end; ++n) {
        const float *in = x + n * input_c * area, *gradient = dy + n * output_c * area;
        product(weight, 1, input_c, input_c, output_c, gradient, dx + n * input_c * area);
        for (int p = 0; p < area; p += CHUNK) {
          const int count = std::min(CHUNK, area - p);
          for (int c = 0; c < input_c; ++c)
            for (int i = 0; i < count; ++i) turned[i * input_c + c] = in[c * area + p + i];
          gemm(output_c, input_c, count, gradient + p, area, 1, turned, input_c,
               Matrix{sums, input_c, true});
        }
      }
    });
    partials.total(threads, dweight);
  }

 private:
  static constexpr int CHUNK = 64;  // pixels

  // out (m, area) = a (m, k) times b (k, area); a has free strides.
  void product(const float* a, int a_row, int a_col, int m, int k, const float* b,
               float* out) const {
    const int whole = area / 8 * 8;
    gemm(m, whole, k, a, a_row, a_col, b, area, Matrix{out, area, false});
    for (int r = 0; r < m; ++r)
      for (int p = whole; p < area; ++p) {
        float sum = 0;
        for (int c = 0; c < k; ++c) sum += a[r * a_row + c * a_col] * b[c * area + p];
        out[r * area + p] = sum;
      }
  }
};

enum Activation { NONE = 0, RELU = 1, HARD_SWISH = 2 };

// y = activation(x + bias of the channel), planes of `area` values.
struct BiasActivation {
  int64_t count;  // N * C
  int channels;
  int64_t area;
  Activation activation;

  void forward(const float* x, const float* bias, float* y, int threads) const {
    parallel(threads, [&](int task) {
      const Range range = task_range(count, task);
      for (int64_t plane = range.begin; plane < range.end; ++plane) {
        const float offset = bias[plane % channels];
        const float* in = x + plane * area;
        float* out = y + plane * area;
        if (activation == NONE)
          for (int64_t i = 0; i < area; ++i) out[i] = in[i] + offset;
        else if (activation == RELU)
          for (int64_t i = 0; i < area; ++i) out[i] = std::max(in[i] + offset, 0.0f);
        else
          for (int64_t i = 0; i < area; ++i) out[i] = hard_swish(in[i] + offset);
      }
    });
  }

  void backward(const float* dy, const float* x, const float* bias, float* dx, float* dbias,
                int threads) const {
    Partials partials(channels);
    parallel(threads, [&](int task) {
      float* sums = partials.zeroed_task(task);
      const Range range = task_range(count, task);
      for (int64_t plane = range.begin; plane < range.end; ++plane) {
        const float offset = bias[plane % channels];
        const float *in = x + plane * area, *gradient = dy + plane * area;
        float* out = dx + plane * area;
        if (activation == NONE)
          std::copy(gradient, gradient + area, out);
        else if (activation == RELU)
          for (int64_t i = 0; i < area; ++i) out[i] = in[i] + offset > 0 ? gradient[i] : 0;
        else
          for (int64_t i = 0; i < area; ++i) out[i] = gradient[i] * slope(in[i] + offset);
        constexpr int LANE = 8;
        float parts[LANE] = {};
        int64_t i = 0;
        for (; i + LANE <= area; i += LANE)
          for (int t = 0; t < LANE; ++t) parts[t] += out[i + t];
        for (; i < area; ++i) parts[0] += out[i];
        for (float part : parts) sums[plane % channels] += part;
      }
    });
    partials.total(threads, dbias);
  }

 private:
  static float hard_swish(float v) { return v * std::min(std::max(v + 3, 0.0f), 6.0f) / 6; }
  static float slope(float v) { return v <= -3 ? 0 : v >= 3 ? 1 : (2 * v + 3) / 6; }
};

}  // namespace portraitnet
