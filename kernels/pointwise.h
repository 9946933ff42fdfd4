// 1x1 convolution with its neighbours' BatchNorm and activation.
#pragma once

#include "gemm.h"
#include "norm.h"

namespace portraitnet {

// (k, n) as the right factor of a product.
inline void make_factor(const float* matrix, int k, int n, std::vector<float>& out) {
  out.assign(matrix, matrix + size_t(k) * n);
}
#ifdef __AVX512BF16__
inline void make_factor(const float* matrix, int k, int n, std::vector<BFloat16Pair>& out) {
  out.resize(size_t(k) / 2 * n);
  for (int p = 0; p < k / 2; ++p)
    each_vector(n, [&, from = matrix + size_t(2 * p) * n](auto vector, int c) {
      using V = decltype(vector);
      store_pairs(&out[size_t(p) * n + c], load<V>(from + c), load<V>(from + n + c));
    });
}
#endif

// x (pixels, input_c) raw -> y (pixels, output_c) raw; weight (output_c, input_c). The factors of
// the products are stored as Y is, their sums are float.
template <class X, class Y>
void pointwise_forward(const X* x, const Norm& norm, const float* weight, int64_t pixels,
                       int input_c, int output_c, Y* y, Sums& sums, int threads) {
  using Pack = typename Factor<Y>::type;
  constexpr bool plain = std::is_same<Y, float>::value, alike = std::is_same<X, Y>::value;
  std::vector<Pack> matrix;
  make_factor(transpose(weight, output_c, input_c).data(), input_c, output_c, matrix);
  const int64_t chunk = chunk_pixels(input_c + output_c);
  const int k = input_c / PACK<Y>;
  parallel(threads, [&](int task) {
    float* product = scratch(chunk * (input_c + output_c));
    Y* buffer = reinterpret_cast<Y*>(product + chunk * output_c);
    const Range range = task_range(pixels, task);
    for (int64_t p = range.begin; p < range.end; p += chunk) {
      const int64_t count = std::min(chunk, range.end - p);
      const void* rows = x + p * input_c;
      if (norm.scale || !alike)
        fill(count, input_c, activated(x + p * input_c, norm), buffer), rows = buffer;
      Y* out = y + p * output_c;
      if (plain) product = reinterpret_cast<float*>(out);
      gemm(count, output_c, k, static_cast<const Pack*>(rows), k, 1, matrix.data(), output_c,
           product, output_c, false);
      store_moments(product, count, out, task, sums);
    }
  });
}

// dz (pixels, output_c) is the gradient of y's normalised value. Writes dx (pixels, input_c), that
// of x's normalised value with its sums, or of x itself where there is no norm; and dweight.
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
  // The weight's gradient is a sum over pixels. Where there are many it is summed chunk by chunk,
  // a matrix for each task. Where there are few, TASKS large matrices would cost more than the
  // products, so all pixels' factors are kept and each task makes some rows of the one matrix.
  const bool many = pixels * (input_c + output_c) > TASKS * int64_t(input_c) * output_c;
  Partials partials(many ? size_t(input_c) * output_c : 0);
  Pack* kept_g = reinterpret_cast<Pack*>(scratch<2>(many ? 0 : groups * (input_c + output_c)));
  Pack* kept_active = kept_g + groups * output_c;
  const bool kept_x = plain && !norm.scale;  // x itself is the other factor
  parallel(threads, [&](int task) {
    const Range range = task_range(groups, task);
    float* product = scratch(chunk * 2 * (input_c + output_c));
    Y* g_rows = reinterpret_cast<Y*>(product + chunk * input_c);
    Pack* chunk_g = reinterpret_cast<Pack*>(product + chunk * (input_c + output_c));
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
             partials.task(task), input_c, p > begin);
      X* out = dx + p * input_c;
      if (!norm.scale) product = reinterpret_cast<float*>(out);  // so X is float
      gemm(count, input_c, output_c / PACK<Y>, rows, output_c / PACK<Y>, 1, matrix.data(), input_c,
           product, input_c, false);
      if (norm.scale)
        store_gradient(product, values, x + p * input_c, count, norm, out, task, sums);
    }
  });
  if (many) return partials.total(threads, dweight);
  const Pack* active = kept_x ? reinterpret_cast<const Pack*>(x) : kept_active;
  parallel(threads, [&](int task) {
    const Range blocks = task_range(output_c / 8, task);
    const int64_t row = blocks.begin * 8;
    gemm(blocks.size() * 8, input_c, groups, kept_g + row, 1, output_c, active, input_c,
         dweight + row * input_c, input_c, false);
  });
}

}  // namespace portraitnet
