// 1x1 convolution with its neighbours' BatchNorm and activation.
#pragma once

#include "gemm.h"
#include "norm.h"

namespace portraitnet {

// x (pixels, input_c) raw -> y (pixels, output_c) raw; weight (output_c, input_c).
inline void pointwise_forward(const float* x, const Norm& norm, const float* weight, int64_t pixels,
                              int input_c, int output_c, float* y, Sums& sums, int threads) {
  const std::vector<float> matrix = transpose(weight, output_c, input_c);
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
  const int64_t chunk = chunk_pixels(2 * input_c + output_c);
  // The weight's gradient is a sum over pixels. Where there are many it is summed chunk by chunk,
  // a matrix for each task. Where there are few, TASKS large matrices would cost more than the
  // products, so all pixels' factors are kept and each task makes some rows of the one matrix.
  const bool many = pixels * (input_c + output_c) > TASKS * int64_t(input_c) * output_c;
  Partials partials(many ? size_t(input_c) * output_c : 0);
  float* kept = many ? nullptr : scratch<2>(pixels * (input_c + output_c));
  float* kept_active = kept + pixels * output_c;
  parallel(threads, [&](int task) {
    const Range range = task_range(pixels, task);
    float* product = scratch(chunk * (many ? output_c + 2 * input_c : input_c));
    if (many && range.size() == 0) partials.zeroed_task(task);
    for (int64_t p = range.begin; p < range.end; p += chunk) {
      const int64_t count = std::min(chunk, range.end - p);
      float* g = many ? product + chunk * input_c : kept + p * output_c;
      float* active = many ? g + chunk * output_c : kept_active + p * input_c;
      const float* a = x + p * input_c;
      float* out = dx + p * input_c;
      raw_gradient(dz + p * output_c, y + p * output_c, count, output_c, gradient, g);
      if (norm.scale) activate(a, count, input_c, norm, active), a = active;
      if (many)
        gemm(output_c, input_c, count, g, 1, output_c, a, input_c, partials.task(task), input_c,
             p > range.begin);
      gemm(count, input_c, output_c, g, output_c, 1, weight, input_c, norm.scale ? product : out,
           input_c, false);
      if (norm.scale) store_gradient(product, a, x + p * input_c, count, norm, out, task, sums);
    }
  });
  if (many) return partials.total(threads, dweight);
  const float* a = norm.scale ? kept_active : x;
  parallel(threads, [&](int task) {
    const Range blocks = task_range(output_c / 8, task);
    const int64_t row = blocks.begin * 8;
    gemm(blocks.size() * 8, input_c, pixels, kept + row, 1, output_c, a, input_c,
         dweight + row * input_c, input_c, false);
  });
}

}  // namespace portraitnet
