// The small dense convolutions: stem, upsampling and heads.
//
// `count` neighbouring rows are interleaved column by column, (columns, count, channels), with zero
// columns around the image. The window of a convolution is then one contiguous run, and a row of
// outputs one matrix product.
#pragma once

#include <numeric>

#include "gemm.h"
#include "norm.h"

namespace portraitnet {

class Window {
 public:
  // `left` and `right`: zero columns beside the image.
  Window(float* memory, int count, int channels, int width, int left, int right)
      : memory_(memory), count_(count), channels_(channels), width_(width), left_(left) {
    std::memset(memory, 0, size(count, channels, width, left, right) * sizeof(float));
  }
  static size_t size(int count, int channels, int width, int left, int right) {
    return size_t(count) * channels * (width + left + right);
  }
  // Place r of every column from an image row; values of a pixel are `step` apart, pixels `pixel`.
  // Null is zeros.
  void set(int r, const float* row, int64_t pixel, int64_t step, int first = 0, int channels = 0) {
    channels = channels ? channels : channels_;
    for (int j = 0; j < width_; ++j) {
      float* out = memory_ + (int64_t(left_ + j) * count_ + r) * channels_ + first;
      if (!row)
        std::memset(out, 0, channels * sizeof(float));
      else if (step == 1 && channels % 8 == 0)  // neighbours in memory
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
      float* product = scratch(window_size() + size_t(out_width()) * output_c);
      Window window(product + size_t(out_width()) * output_c, 3, C, width, 1, 1);
      const Range range = task_range(batch * out_height(), task);
      for (int64_t row = range.begin; row < range.end; ++row) {
        fill(window, x, row);
        gemm(out_width(), output_c, K, window.column(0), 2 * window.pitch(), 1, matrix.data(),
             output_c, product, output_c, false);
        store_moments(product, out_width(), y + row * out_width() * output_c, task, sums);
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
             sum, output_c, true);
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
// i and one from row i - 1 + 2a; columns alike.
struct Upsample {
  int64_t batch;
  int height, width, channels;
  size_t place(int in, int out, int ky, int kx) const {
    return ((size_t(in) * channels + out) * 4 + ky) * 4 + kx;
  }

  const float* row_of(const float* image, int row, int rows, int64_t size) const {
    return row < 0 || row >= rows ? nullptr : image + row * size;
  }

  void forward(const float* x, const float* weight, float* y, int threads) const {
    const int C = channels;
    const size_t block = size_t(4) * C * C;
    std::vector<float> matrix(
        4 * block);  // one for each parity (a, b): rows (column, row, input channel)
    for (int a = 0; a < 2; ++a)
      for (int b = 0; b < 2; ++b)
        for (int s = 0; s < 2; ++s)
          for (int r = 0; r < 2; ++r)
            for (int i = 0; i < C; ++i)
              for (int o = 0; o < C; ++o) {
                const int ky = r == 0 ? 1 + a : 3 - 3 * a, kx = 3 - 2 * s - b;
                matrix[(a * 2 + b) * block + (size_t(s * 2 + r) * C + i) * C + o] =
                    weight[place(i, o, ky, kx)];
              }
    const int64_t in_row = int64_t(width) * C, out_row = 2 * in_row;
    parallel(threads, [&](int task) {
      Window window(scratch(Window::size(2, C, width, 1, 1)), 2, C, width, 1, 1);
      const Range range = task_range(batch * height, task);
      for (int64_t row = range.begin; row < range.end; ++row) {
        const float* image = x + row / height * height * in_row;
        const int i = int(row % height);
        window.set(0, image + i * in_row, C, 1);
        for (int a = 0; a < 2; ++a) {
          window.set(1, row_of(image, i - 1 + 2 * a, height, in_row), C, 1);
          for (int b = 0; b < 2; ++b)
            gemm(width, C, 4 * C, window.column(b), window.pitch(), 1,
                 matrix.data() + (a * 2 + b) * block, C, y + (2 * row + a) * out_row + b * C, 2 * C,
                 false);
        }
      }
    });
  }

  void backward(const float* dy, const float* x, const float* weight, float* dx, float* dweight,
                int threads) const {
    const int C = channels, K = 16 * C;
    std::vector<float> matrix(size_t(K) * C);
    for (int kx = 0; kx < 4; ++kx)
      for (int ky = 0; ky < 4; ++ky)
        for (int o = 0; o < C; ++o)
          for (int i = 0; i < C; ++i)
            matrix[(size_t(kx * 4 + ky) * C + o) * C + i] = weight[place(i, o, ky, kx)];
    const int64_t in_row = int64_t(width) * C, out_row = 2 * in_row;
    Partials partials(size_t(K) * C);
    parallel(threads, [&](int task) {
      float* sum = partials.zeroed_task(task);
      Window window(scratch(Window::size(4, C, 2 * width, 1, 1)), 4, C, 2 * width, 1, 1);
      const Range range = task_range(batch * height, task);
      for (int64_t row = range.begin; row < range.end; ++row) {
        const float* image = dy + row / height * height * 2 * out_row;
        const int i = int(row % height);
        for (int ky = 0; ky < 4; ++ky)
          window.set(ky, row_of(image, 2 * i - 1 + ky, 2 * height, out_row), C, 1);
        gemm(width, C, K, window.column(0), 2 * window.pitch(), 1, matrix.data(), C,
             dx + row * in_row, C, false);
        gemm(K, C, width, window.column(0), 1, 2 * window.pitch(), x + row * in_row, C,
             sum, C, true);
      }
    });
    std::vector<float> total(size_t(K) * C);
    partials.total(threads, total.data());
    for (int kx = 0; kx < 4; ++kx)
      for (int ky = 0; ky < 4; ++ky)
        for (int o = 0; o < C; ++o)
          for (int i = 0; i < C; ++i)
            dweight[place(i, o, ky, kx)] = total[(size_t(kx * 4 + ky) * C + o) * C + i];
  }
};

// One or two 3x3 heads on the same features: x (batch, height, width, C) -> logits (batch,
// counts[h], height, width); weight (sum of counts, C, 3, 3), the heads' one after the other.
struct Heads {
  int64_t batch;
  int height, width, channels;
  std::vector<int> counts;
  int outputs() const { return std::accumulate(counts.begin(), counts.end(), 0); }
  size_t place(int o, int c, int ky, int kx) const {
    return ((size_t(o) * channels + c) * 3 + ky) * 3 + kx;
  }

  const float* row_of(const float* image, int row, int64_t size) const {
    return row < 0 || row >= height ? nullptr : image + row * size;
  }

  void forward(const float* x, const float* weight, const std::vector<float*>& logits,
               int threads) const {
    const int C = channels, padded = (outputs() + 7) / 8 * 8, K = 9 * C;
    std::vector<float> matrix(size_t(K) * padded);
    for (int kx = 0; kx < 3; ++kx)
      for (int ky = 0; ky < 3; ++ky)
        for (int c = 0; c < C; ++c)
          for (int o = 0; o < outputs(); ++o)
            matrix[(size_t(kx * 3 + ky) * C + c) * padded + o] = weight[place(o, c, ky, kx)];
    const int64_t in_row = int64_t(width) * C, plane = int64_t(height) * width;
    parallel(threads, [&](int task) {
      float* product = scratch(size_t(width) * padded + Window::size(3, C, width, 1, 1));
      Window window(product + size_t(width) * padded, 3, C, width, 1, 1);
      const Range range = task_range(batch * height, task);
      for (int64_t row = range.begin; row < range.end; ++row) {
        const int64_t image = row / height;
        const int i = int(row % height);
        for (int r = 0; r < 3; ++r)
          window.set(r, row_of(x + image * height * in_row, i - 1 + r, in_row), C, 1);
        gemm(width, padded, K, window.column(0), window.pitch(), 1, matrix.data(), padded, product,
             padded, false);
        int first = 0;
        for (size_t h = 0; h < counts.size(); first += counts[h++])
          for (int o = 0; o < counts[h]; ++o) {
            float* out = logits[h] + (image * counts[h] + o) * plane + int64_t(i) * width;
            for (int j = 0; j < width; ++j) out[j] = product[j * padded + first + o];
          }
      }
    });
  }

  void backward(const std::vector<const float*>& dlogits, const float* x, const float* weight,
                float* dx, float* dweight, int threads) const {
    const int C = channels, O = outputs(), K = 9 * O;
    std::vector<float> matrix(size_t(K) * C);  // rows (kx, ky, output) of the mirrored kernel
    for (int kx = 0; kx < 3; ++kx)
      for (int ky = 0; ky < 3; ++ky)
        for (int o = 0; o < O; ++o)
          for (int c = 0; c < C; ++c)
            matrix[(size_t(kx * 3 + ky) * O + o) * C + c] = weight[place(o, c, 2 - ky, 2 - kx)];
    const int64_t in_row = int64_t(width) * C, plane = int64_t(height) * width;
    Partials partials(size_t(K) * C);
    parallel(threads, [&](int task) {
      float* sum = partials.zeroed_task(task);
      Window window(scratch(Window::size(3, O, width, 1, 1)), 3, O, width, 1, 1);
      const Range range = task_range(batch * height, task);
      for (int64_t row = range.begin; row < range.end; ++row) {
        const int64_t image = row / height;
        const int i = int(row % height);
        int first = 0;
        for (size_t h = 0; h < counts.size(); first += counts[h++])
          for (int r = 0; r < 3; ++r)
            window.set(r, row_of(dlogits[h] + image * counts[h] * plane, i - 1 + r, width), 1,
                       plane, first, counts[h]);
        gemm(width, C, K, window.column(0), window.pitch(), 1, matrix.data(), C, dx + row * in_row,
             C, false);
        gemm(K, C, width, window.column(0), 1, window.pitch(), x + row * in_row, C,
             sum, C, true);
      }
    });
    std::vector<float> total(size_t(K) * C);
    partials.total(threads, total.data());
    for (int kx = 0; kx < 3; ++kx)
      for (int ky = 0; ky < 3; ++ky)
        for (int o = 0; o < O; ++o)
          for (int c = 0; c < C; ++c)
            dweight[place(o, c, 2 - ky, 2 - kx)] = total[(size_t(kx * 3 + ky) * O + o) * C + c];
  }
};

}  // namespace portraitnet
