// 1x1 convolution with its neighbours' BatchNorm and activation.
#pragma once

#include "gemm.h"
#include "norm.h"

namespace portraitnet {

// x (pixels, input_c) raw -> y (pixels, output_c) raw; weight (output_c, input_c).
inline void pointwise_forward(const float* x, const Norm& norm, const float* weight, int64_t pixels,
                              int input_c, int output_c, float* y, Sums& sums, int threads) {
  std::vector<float> matrix(size_t(input_c) * output_c);
  for (int o = 0; o < output_c; ++o)
    for (int i = 0; i < input_c; ++i)
      matrix[size_t(i) * output_c + o] = weight[size_t(o) * input_c + i];
  const int64_t chunk = chunk_pixels(input_c + output_c);
  parallel(threads, [&](int task) {
    float* buffer = scratch(chunk * input_c);
    const Range range = task_range(pixels, task);
    for (int64_t p = range.begin; p < range.end; p += chunk) {
      const int64_t count = std::min(chunk, range.end - p);
      const float* a = x + p * input_c;
      if (norm.scale) activate(a, count, input_c, norm, buffer), a = buffer;
      gemm(count, output_c, input_c, a, input_c, 1, matrix.data(), output_c, y + p * output_c,
           output_c, false);
      add_moments(y + p * output_c, count, task, sums);
    }
  });
}

// dz (pixels, output_c) is the gradient of y's normalised value. Writes dx (pixels, input_c), that
// of x's normalised value with its sums, or of x itself where there is no norm; and dweight.
inline void pointwise_backward(const float* dz, const float* y, const Gradient& gradient,
                               const float* x, const Norm& norm, const float* weight,
                               int64_t pixels, int input_c, int output_c, float* dx, Sums& sums,
                               float* dweight, int threads) {
  Partials partials(size_t(input_c) * output_c);
  const int64_t chunk = chunk_pixels(2 * input_c + output_c);
  parallel(threads, [&](int task) {
    float* g = scratch(chunk * (output_c + 2 * input_c));
    float* active = g + chunk * output_c;
    float* product = active + chunk * input_c;
    const Range range = task_range(pixels, task);
    for (int64_t p = range.begin; p < range.end; p += chunk) {
      const int64_t count = std::min(chunk, range.end - p);
      const float* a = x + p * input_c;
      float* out = dx + p * input_c;
      raw_gradient(dz + p * output_c, y + p * output_c, count, output_c, gradient, g);
      if (norm.scale) activate(a, count, input_c, norm, active), a = active;
      gemm(output_c, input_c, count, g, 1, output_c, a, input_c, partials.task(task), input_c,
           true);
      gemm(count, input_c, output_c, g, output_c, 1, weight, input_c, norm.scale ? product : out,
           input_c, false);
      if (norm.scale)
        store_gradient(product, active, x + p * input_c, count, norm, out, task, sums);
    }
  });
  partials.total(threads, dweight);
}

}  // namespace portraitnet
