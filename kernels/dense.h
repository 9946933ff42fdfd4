// The small dense convolutions: stem, upsampling and heads.
//
// `count` neighbouring rows are interleaved column by column, (columns, count, channels), with zero
// columns around the image. The window of a convolution is then contiguous, and a row of outputs is
// one matrix product.
#pragma once

#include <numeric>

#include "gemm.h"
#include "norm.h"
#include "rows.h"

namespace portraitnet {

class Window {
 public:
  // `left` and `right` are the numbers of zero columns beside the image.
  Window(float* memory, int count, int channels, int width, int left, int right)
      : memory_(memory), count_(count), channels_(channels), width_(width), left_(left) {
    std::memset(memory, 0, size(count, channels, width, left, right) * sizeof(float));
  }
  static size_t size(int count, int channels, int width, int left, int right) {
    return size_t(count) * channels * (width + left + right);
  }
  // Fills index r of every column from an image row; null gives zeros. The values of a pixel are
  // `step` apart, pixels are `pixel` apart.
  void set(int r, const float* row, int64_t pixel, int64_t step, int first = 0, int channels = 0) {
    channels = channels ? channels : channels_;
    for (int j = 0; j < width_; ++j) {
      float* out = memory_ + (int64_t(left_ + j) * count_ + r) * channels_ + first;
      if (!row)
        std::memset(out, 0, channels * sizeof(float));
      else if (step == 1 && channels % 8 == 0)  // contiguous
        for (int c = 0; c < channels; c += 8) store(out + c, load<Float8>(row + j * pixel + c));
      else
        for (int c = 0; c < channels; ++c) out[c] = row[j * pixel + c * step];
    }
  }
  const float* column(int j) const { return memory_ + int64_t(j) * pitch(); }
  int64_t pitch() const { return int64_t(count_) * channels_; }

 private:
  float* memory_;
  int count_, channels_, width_, left_;
};

// 3x3 stride-2 convolution, padding 1: x (batch, 3, height, width) -> y (batch, height / 2,
// width / 2, output_c); weight (output_c, 3, 3, 3).
struct Stem {
  int64_t batch;
  int height, width, output_c;
  static constexpr int C = 3, K = 27;
  int out_height() const { return (height - 1) / 2 + 1; }
  int out_width() const { return (width - 1) / 2 + 1; }
  size_t window_size() const { return Window::size(3, C, width, 1, 1); }

  void fill(Window& window, const float* x, int64_t out_row) const {
    const int64_t image = out_row / out_height(), plane = int64_t(height) * width;
    for (int r = 0; r < 3; ++r) {
      const int row = int(out_row % out_height()) * 2 - 1 + r;
      const bool inside = row >= 0 && row < height;
      window.set(r, inside ? x + image * C * plane + int64_t(row) * width : nullptr, 1, plane);
    }
  }

  static int64_t place(int o, int c, int ky, int kx) {
    return ((int64_t(o) * C + c) * 3 + ky) * 3 + kx;
  }

  template <class Y>
  void forward(const float* x, const float* weight, Y* y, Sums& sums, int threads) const {
    std::vector<float> matrix(size_t(K) * output_c);
    for (int kx = 0; kx < 3; ++kx)
      for (int ky = 0; ky < 3; ++ky)
        for (int c = 0; c < C; ++c)
          for (int o = 0; o < output_c; ++o)
            matrix[size_t((kx * 3 + ky) * C + c) * output_c + o] = weight[place(o, c, ky, kx)];
    parallel(threads, [&](int task) {
      Window window(scratch(window_size()), 3, C, width, 1, 1);
      RowSums row_sums(output_c);
      const Range range = task_range(batch * out_height(), task);
      for (int64_t row = range.begin; row < range.end; ++row) {
        fill(window, x, row);
        gemm(out_width(), output_c, K, window.column(0), 2 * window.pitch(), 1, matrix.data(),
             output_c, RawOutput<Y>{y + row * out_width() * output_c, output_c, row_sums.one,
                                    row_sums.two});
        row_sums.flush(task, sums);
      }
    });
  }

  template <class Y>
  void backward(const Y* dz, const Y* y, const Gradient& gradient, const float* x, float* dweight,
                int threads) const {
    Partials partials(size_t(K) * output_c);
    parallel(threads, [&](int task) {
      float* sum = partials.zeroed_task(task);
      float* g = scratch(window_size() + size_t(out_width()) * output_c);
      Window window(g + size_t(out_width()) * output_c, 3, C, width, 1, 1);
      const Range range = task_range(batch * out_height(), task);
      for (int64_t row = range.begin; row < range.end; ++row) {
        fill(window, x, row);
        const int64_t start = row * out_width() * output_c;
        portraitnet::fill(out_width(), output_c, raw_gradient(dz + start, y + start, gradient), g);
        gemm(K, output_c, out_width(), window.column(0), 1, 2 * window.pitch(), g, output_c,
             Matrix{sum, output_c, true});
      }
    });
    std::vector<float> total(size_t(K) * output_c);
    partials.total(threads, total.data());
    for (int kx = 0; kx < 3; ++kx)
      for (int ky = 0; ky < 3; ++ky)
        for (int c = 0; c < C; ++c)
          for (int o = 0; o < output_c; ++o)
            dweight[place(o, c, ky, kx)] = total[size_t((kx * 3 + ky) * C + c) * output_c + o];
  }
};

// 4x4 stride-2 transposed convolution, padding 1: x (batch, height, width, C) -> y (batch,
// 2 height, 2 width, C); weight (C in, C out, 4, 4). Output row 2i + a takes one tap from input row
// i and one from row i - 1 + 2a; the same holds for columns.
struct Upsample {
  int64_t batch;
  int height, width, channels;
  size_t place(int in, int out, int ky, int kx) const {
    return ((size_t(in) * channels + out) * 4 + ky) * 4 + kx;
  }

  // The factors of the products have the type T.
  template <class T, class Y>
  void forward(const float* x, const float* weight, Y* y, int threads) const {
    using Pack = typename Factor<T>::type;
    constexpr bool plain = std::is_same<Y, float>::value;
    const int C = channels, K = 2 * C, steps = K / PACK<T>;
    std::vector<Pack> matrix[8];  // for parities a, b and row r: (column, input channel) x output
    std::vector<float> one(size_t(K) * C);
    for (int a = 0; a < 2; ++a)
      for (int b = 0; b < 2; ++b)
        for (int r = 0; r < 2; ++r) {
          for (int s = 0; s < 2; ++s)
            for (int i = 0; i < C; ++i)
              for (int o = 0; o < C; ++o) {
                const int ky = r == 0 ? 1 + a : 3 - 3 * a, kx = 3 - 2 * s - b;
                one[(size_t(s) * C + i) * C + o] = weight[place(i, o, ky, kx)];
              }
          make_factor(one.data(), K, C, matrix[a * 4 + b * 2 + r]);
        }
    const int64_t in_row = int64_t(width) * C, out_row = 2 * in_row;
    const size_t ring_size = RowRing<T>::size(3, width + 2, C);
    parallel(threads, [&](int task) {
      float* product = scratch(out_row + ring_size);
      RowRing<T> ring(reinterpret_cast<T*>(product + out_row), 3, width + 2, C);
      const auto make = [&](int64_t row, T* out) {
        fill(width, C, activated(x + row * in_row, Norm()), out);
      };
      const Range range = task_range(batch * height, task);
      for (int64_t row = range.begin; row < range.end; ++row)
        for (int a = 0; a < 2; ++a) {
          Y* out = y + (2 * row + a) * out_row;
          if (plain) product = reinterpret_cast<float*>(out);
          for (int r = 0; r < 2; ++r) {
            const int i = int(row % height) + r * (2 * a - 1);
            const T* start = ring.get(row / height, i, height, make);
            if (!start) continue;
            for (int b = 0; b < 2; ++b)
              gemm(width, C, steps, reinterpret_cast<const Pack*>(start + b * C), C / PACK<T>, 1,
                   matrix[a * 4 + b * 2 + r].data(), C, Matrix{product + b * C, 2 * C, r == 1});
          }
          if (!plain) fill(2 * width, C, activated(product, Norm()), out);
        }
    });
  }

  template <class T, class Y>
  void backward(const Y* dy, const float* x, const float* weight, float* dx, float* dweight,
                int threads) const {
    using Pack = typename Factor<T>::type;
    constexpr int PIXELS = PACK<T>;
    const int C = channels, K = 4 * C, groups = (width + PIXELS - 1) / PIXELS;
    const int padded = 2 * width + 4;
    const size_t block = size_t(K) * C;
    std::vector<Pack> matrix[4];  // for ky: rows (kx, output)
    std::vector<float> one(block);
    for (int ky = 0; ky < 4; ++ky) {
      for (int kx = 0; kx < 4; ++kx)
        for (int o = 0; o < C; ++o)
          for (int i = 0; i < C; ++i)
            one[(size_t(kx) * C + o) * C + i] = weight[place(i, o, ky, kx)];
      make_factor(one.data(), K, C, matrix[ky]);
    }
    const int64_t in_row = int64_t(width) * C, out_row = 2 * in_row;
    Partials partials(4 * block);
    parallel(threads, [&](int task) {
      float* sum = partials.zeroed_task(task);
      float* memory = scratch(FactorRing<T>::size(4, padded, C) + size_t(groups) * C);
      Pack* pairs = reinterpret_cast<Pack*>(memory);
      FactorRing<T> ring(memory + size_t(groups) * C, 4, padded, C, 2);
      const auto make = [&](int64_t row, T* out) {
        fill(2 * width, C, activated(dy + row * out_row, Norm()), out);
      };
      const Range range = task_range(batch * height, task);
      for (int64_t row = range.begin; row < range.end; ++row) {
        const Pack* pixels = pixel_factors<T>(x + row * in_row, width, C, pairs);
        bool add = false;
        for (int ky = 0; ky < 4; ++ky) {
          const auto start =
              ring.get(row / height, 2 * int(row % height) - 1 + ky, 2 * height, make);
          if (!start.values) continue;
          gemm(width, C, K / PACK<T>, reinterpret_cast<const Pack*>(start.values), 2 * C / PACK<T>,
               1, matrix[ky].data(), C, Matrix{dx + row * in_row, C, add});
          gemm(K, C, groups, start.factors, 1, 2 * PIXELS * C, pixels, C,
               Matrix{sum + ky * block, C, true});
          add = true;
        }
      }
    });
    std::vector<float> total(4 * block);
    partials.total(threads, total.data());
    for (int ky = 0; ky < 4; ++ky)
      for (int kx = 0; kx < 4; ++kx)
        for (int o = 0; o < C; ++o)
          for (int i = 0; i < C; ++i)
            dweight[place(i, o, ky, kx)] = total[ky * block + (size_t(kx) * C + o) * C + i];
  }
};

// One or two 3x3 heads on the same features: x (batch, height, width, C) -> logits (batch,
// counts[h], height, width). weight (sum of counts, C, 3, 3) holds the heads' weights in order.
struct Heads {
  int64_t batch;
  int height, width, channels;
  std::vector<int> counts;
  int outputs() const { return std::accumulate(counts.begin(), counts.end(), 0); }
  size_t place(int o, int c, int ky, int kx) const {
    return ((size_t(o) * channels + c) * 3 + ky) * 3 + kx;
  }

  // The factors of the products have the type T, like x.
  template <class T>
  void forward(const T* x, const float* weight, const std::vector<float*>& logits,
               int threads) const {
    using Pack = typename Factor<T>::type;
    const int C = channels, padded = (outputs() + 7) / 8 * 8, K = 3 * C;
    std::vector<Pack> matrix[3];  // for ky: rows (kx, channel)
    for (int ky = 0; ky < 3; ++ky) {
      std::vector<float> one(size_t(K) * padded);
      for (int kx = 0; kx < 3; ++kx)
        for (int c = 0; c < C; ++c)
          for (int o = 0; o < outputs(); ++o)
            one[(size_t(kx) * C + c) * padded + o] = weight[place(o, c, ky, kx)];
      make_factor(one.data(), K, padded, matrix[ky]);
    }
    const int64_t in_row = int64_t(width) * C, plane = int64_t(height) * width;
    const size_t product_size = size_t(width) * padded;
    parallel(threads, [&](int task) {
      float* product = scratch(product_size + RowRing<T>::size(3, width + 2, C));
      RowRing<T> ring(reinterpret_cast<T*>(product + product_size), 3, width + 2, C);
      const auto make = [&](int64_t row, T* out) {
        std::memcpy(out, x + row * in_row, in_row * sizeof(T));
      };
      const Range range = task_range(batch * height, task);
      for (int64_t row = range.begin; row < range.end; ++row) {
        const int64_t image = row / height;
        const int i = int(row % height);
        bool add = false;
        for (int ky = 0; ky < 3; ++ky)
          if (const T* start = ring.get(image, i - 1 + ky, height, make)) {
            gemm(width, padded, K / PACK<T>, reinterpret_cast<const Pack*>(start), C / PACK<T>, 1,
                 matrix[ky].data(), padded, Matrix{product, padded, add});
            add = true;
          }
        int first = 0;
        for (size_t h = 0; h < counts.size(); first += counts[h++])
          for (int o = 0; o < counts[h]; ++o) {
            float* out = logits[h] + (image * counts[h] + o) * plane + int64_t(i) * width;
            for (int j = 0; j < width; ++j) out[j] = product[j * padded + first + o];
          }
      }
    });
  }

  template <class T>
  void backward(const std::vector<const float*>& dlogits, const T* x, const float* weight, T* dx,
                float* dweight, int threads) const {
    using Pack = typename Factor<T>::type;
    constexpr bool plain = std::is_same<T, float>::value;
    constexpr int PIXELS = PACK<T>;
    const int C = channels, O = (outputs() + PACK<T> - 1) / PACK<T> * PACK<T>, K = 3 * O;
    const int groups = (width + PIXELS - 1) / PIXELS, padded = width + 3;
    const size_t block = size_t(K) * C;
    std::vector<Pack> matrix[3];  // for ky: rows (kx, output) of the mirrored kernel
    for (int ky = 0; ky < 3; ++ky) {
      std::vector<float> one(block);
      for (int kx = 0; kx < 3; ++kx)
        for (int o = 0; o < outputs(); ++o)
          for (int c = 0; c < C; ++c)
            one[(size_t(kx) * O + o) * C + c] = weight[place(o, c, 2 - ky, 2 - kx)];
      make_factor(one.data(), K, C, matrix[ky]);
    }
    const int64_t in_row = int64_t(width) * C, plane = int64_t(height) * width;
    Partials partials(3 * block);
    parallel(threads, [&](int task) {
      float* sum = partials.zeroed_task(task);
      float* product = scratch(in_row + size_t(groups) * C + FactorRing<T>::size(3, padded, O));
      Pack* pairs = reinterpret_cast<Pack*>(product + in_row);
      FactorRing<T> ring(product + in_row + size_t(groups) * C, 3, padded, O, 1);
      const auto make = [&](int64_t row, T* out) {
        const int64_t image = row / height, i = row % height;
        int first = 0;
        for (size_t h = 0; h < counts.size(); first += counts[h++])
          for (int o = 0; o < counts[h]; ++o)
            spread(dlogits[h] + (image * counts[h] + o) * plane + i * width, O, out + first + o);
      };
      const Range range = task_range(batch * height, task);
      for (int64_t row = range.begin; row < range.end; ++row) {
        T* out = dx + row * in_row;
        const Pack* pixels = pixel_factors<T>(x + row * in_row, width, C, pairs);
        if (plain) product = reinterpret_cast<float*>(out);
        bool add = false;
        for (int ky = 0; ky < 3; ++ky) {
          const auto start = ring.get(row / height, int(row % height) - 1 + ky, height, make);
          if (!start.values) continue;
          gemm(width, C, K / PACK<T>, reinterpret_cast<const Pack*>(start.values), O / PACK<T>, 1,
               matrix[ky].data(), C, Matrix{product, C, add});
          gemm(K, C, groups, start.factors, 1, PIXELS * O, pixels, C,
               Matrix{sum + ky * block, C, true});
          add = true;
        }
        if (!plain) fill(width, C, activated(product, Norm()), out);
      }
    });
    std::vector<float> total(3 * block);
    partials.total(threads, total.data());
    for (int ky = 0; ky < 3; ++ky)
      for (int kx = 0; kx < 3; ++kx)
        for (int o = 0; o < outputs(); ++o)
          for (int c = 0; c < C; ++c)
            dweight[place(o, c, 2 - ky, 2 - kx)] = total[ky * block + (size_t(kx) * O + o) * C + c];
  }

 private:
  // Copies a row of a plane; the copied values are `step` apart.
  template <class T>
  void spread(const float* row, int step, T* out) const {
    for (int j = 0; j < width; j += 8) {
      const int count = std::min(8, width - j);
      float values[8] = {};
      std::memcpy(values, row + j, count * sizeof(float));
      T rounded[8];
      store(rounded, load<Float8>(values));
      for (int t = 0; t < count; ++t) out[(j + t) * step] = rounded[t];
    }
  }
};

}  // namespace portraitnet
