// 1x1 convolution, fused with BatchNorm and activation of the layers before and after it.
#pragma once

#include "gemm.h"
#include "norm.h"

namespace portraitnet {

// x (pixels, input_c) raw -> y (pixels, output_c) raw; weight (output_c, input_c). The factors of
// the products have the type of Y, their sums are float.
template <class X, class Y>
void pointwise_forward(const X* x, const Norm& norm, const float* weight, int64_t pixels,
                       int input_c, int output_c, Y* y, Sums& sums, int threads) {
  using Pack = typename Factor<Y>::type;
  constexpr bool alike = std::is_same<X, Y>::value;
  std::vector<Pack> matrix;
  make_factor(transpose(weight, output_c, input_c).data(), input_c, output_c, matrix);
  const int64_t chunk = chunk_pixels(input_c + output_c);
  const int k = input_c / PACK<Y>;
  parallel(threads, [&](int task) {
    Y* buffer = reinterpret_cast<Y*>(scratch(chunk * input_c));
    RowSums row_sums(output_c);
    const Range range = task_range(pixels, task);
    for (int64_t p = range.begin; p < range.end; p += chunk) {
      const int64_t count = std::min(chunk, range.end - p);
      const void* rows = x + p * input_c;
      if (norm.scale || !alike)
        fill(count, input_c, activated(x + p * input_c, norm), buffer), rows = buffer;
      gemm(count, output_c, k, static_cast<const Pack*>(rows), k, 1, matrix.data(), output_c,
           RawOutput<Y>{y + p * output_c, output_c, row_sums.one, row_sums.two});
      row_sums.flush(task, sums);
    }
  });
}

// dz (pixels, output_c) is the gradient of y's normalised value. Writes dweight and
// dx (pixels, input_c): the gradient of x's normalised value with its sums, or of x itself if there
// is no norm.
template <class X, class Y>
void pointwise_backward(const Y* dz, const Y* y, const Gradient& gradient, const X* x,
                        const Norm& norm, const float* weight, int64_t pixels, int input_c,
                        int output_c, X* dx, Sums& sums, float* dweight, int threads) {
  using Pack = typename Factor<Y>::type;
  constexpr bool plain = std::is_same<Y, float>::value;
  std::vector<Pack> matrix;
  make_factor(weight, output_c, input_c, matrix);
  const int64_t chunk = chunk_pixels(2 * input_c + output_c);
  const int64_t groups = (pixels + PACK<Y> - 1) / PACK<Y>;  // pixels that share a Pack
  // The weight's gradient is a sum over pixels. With many pixels it is summed chunk by chunk, in a
  // matrix for each task. With few pixels TASKS large matrices would cost more than the products,
  // so all pixels' factors are kept and each task computes some rows of a single matrix.
  const bool many = pixels * (input_c + output_c) > TASKS * int64_t(input_c) * output_c;
  Partials partials(many ? size_t(input_c) * output_c : 0);
  Pack* kept_g = reinterpret_cast<Pack*>(scratch<2>(many ? 0 : groups * (input_c + output_c)));
  Pack* kept_active = kept_g + groups * output_c;
  const bool kept_x = plain && !norm.scale;  // x itself is the right factor
  parallel(threads, [&](int task) {
    const Range range = task_range(groups, task);
    float* memory = scratch(chunk * (input_c + 2 * output_c));
    Y* g_rows = reinterpret_cast<Y*>(memory);
    Pack* chunk_g = reinterpret_cast<Pack*>(memory + chunk * output_c);
    RowSums row_sums(input_c);
    Pack* chunk_active = chunk_g + chunk * output_c;
    if (many && range.size() == 0) partials.zeroed_task(task);
    const int64_t begin = range.begin * PACK<Y>, end = std::min(pixels, range.end * PACK<Y>);
    for (int64_t p = begin; p < end; p += chunk) {
      const int64_t count = std::min(chunk, end - p), packs = (count + PACK<Y> - 1) / PACK<Y>;
      Pack* g = many ? chunk_g : kept_g + p / PACK<Y> * output_c;
      Pack* active = many ? chunk_active : kept_active + p / PACK<Y> * input_c;
      const Pack* rows = g;
      const auto g_values = raw_gradient(dz + p * output_c, y + p * output_c, gradient);
      const auto values = activated(x + p * input_c, norm);
      if constexpr (plain) {
        fill(count, output_c, g_values, g);
        if (norm.scale) fill(count, input_c, values, active);
      } else {
        fill(count, output_c, g_values, g_rows, g);
        fill(count, input_c, values, static_cast<Y*>(nullptr), active);
        rows = reinterpret_cast<const Pack*>(g_rows);
      }
      if (many)
        gemm(output_c, input_c, packs, g, 1, output_c,
             kept_x ? reinterpret_cast<const Pack*>(x + p * input_c) : active, input_c,
             Matrix{partials.task(task), input_c, p > begin});
      const auto times_weight = [&](const auto& out) {
        gemm(count, input_c, output_c / PACK<Y>, rows, output_c / PACK<Y>, 1, matrix.data(),
             input_c, out);
      };
      X* out = dx + p * input_c;
      if (norm.scale) {
        times_weight(passed_gradient(values, x + p * input_c, out, norm, row_sums, input_c));
        row_sums.flush(task, sums);
      } else {  // so X is float
        times_weight(Matrix{reinterpret_cast<float*>(out), input_c, false});
      }
    }
  });
  if (many) return partials.total(threads, dweight);
  const Pack* active = kept_x ? reinterpret_cast<const Pack*>(x) : kept_active;
  parallel(threads, [&](int task) {
    const Range blocks = task_range(output_c / 8, task);
    const int64_t row = blocks.begin * 8;
    gemm(blocks.size() * 8, input_c, groups, kept_g + row, 1, output_c, active, input_c,
         Matrix{dweight + row * input_c, input_c, false});
  });
}

}  // namespace portraitnet
