// The small dense convolutions: stem, upsampling and heads.
//
// `count` neighbouring rows are interleaved column by column, (columns, count, channels), with zero
// columns around the image. The window of a convolution is then one contiguous run, and a row of
// outputs one matrix product.
#pragma once

#include <numeric>

#include "gemm.h"
#include "norm.h"
#include "rows.h"

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

  void forward(const float* x, const float* weight, float* y, int threads) const {
    const int C = channels, K = 2 * C;
    const size_t block = size_t(K) * C;
    std::vector<float> matrix(8 * block);  // for parities a, b and row r: (column, input channel)
    for (int a = 0; a < 2; ++a)
      for (int b = 0; b < 2; ++b)
        for (int r = 0; r < 2; ++r)
          for (int s = 0; s < 2; ++s)
            for (int i = 0; i < C; ++i)
              for (int o = 0; o < C; ++o) {
                const int ky = r == 0 ? 1 + a : 3 - 3 * a, kx = 3 - 2 * s - b;
                matrix[(a * 4 + b * 2 + r) * block + (size_t(s) * C + i) * C + o] =
                    weight[place(i, o, ky, kx)];
              }
    const int64_t in_row = int64_t(width) * C, out_row = 2 * in_row;
    parallel(threads, [&](int task) {
      RowRing ring(scratch(3 * size_t(width + 2) * C), 3, width + 2, C);
      const auto make = [&](int64_t row, float* out) {
        std::memcpy(out, x + row * in_row, in_row * sizeof(float));
      };
      const Range range = task_range(batch * height, task);
      for (int64_t row = range.begin; row < range.end; ++row)
        for (int a = 0; a < 2; ++a)
          for (int r = 0; r < 2; ++r) {
            const int i = int(row % height) + r * (2 * a - 1);
            const float* start = ring.get(row / height, i, height, make);
            if (!start) continue;
            for (int b = 0; b < 2; ++b)
              gemm(width, C, K, start + b * C, C, 1, &matrix[(a * 4 + b * 2 + r) * block], C,
                   y + (2 * row + a) * out_row + b * C, 2 * C, r == 1);
          }
    });
  }

  void backward(const float* dy, const float* x, const float* weight, float* dx, float* dweight,
                int threads) const {
    const int C = channels, K = 4 * C;
    const size_t block = size_t(K) * C;
    std::vector<float> matrix(4 * block);  // rows (ky, kx, output)
    for (int ky = 0; ky < 4; ++ky)
      for (int kx = 0; kx < 4; ++kx)
        for (int o = 0; o < C; ++o)
          for (int i = 0; i < C; ++i)
            matrix[ky * block + (size_t(kx) * C + o) * C + i] = weight[place(i, o, ky, kx)];
    const int64_t in_row = int64_t(width) * C, out_row = 2 * in_row;
    Partials partials(4 * block);
    parallel(threads, [&](int task) {
      float* sum = partials.zeroed_task(task);
      RowRing ring(scratch(4 * size_t(2 * width + 2) * C), 4, 2 * width + 2, C);
      const auto make = [&](int64_t row, float* out) {
        std::memcpy(out, dy + row * out_row, out_row * sizeof(float));
      };
      const Range range = task_range(batch * height, task);
      for (int64_t row = range.begin; row < range.end; ++row) {
        bool add = false;
        for (int ky = 0; ky < 4; ++ky)
          if (const float* start =
                  ring.get(row / height, 2 * int(row % height) - 1 + ky, 2 * height, make)) {
            gemm(width, C, K, start, 2 * C, 1, &matrix[ky * block], C, dx + row * in_row, C, add);
            gemm(K, C, width, start, 1, 2 * C, x + row * in_row, C, sum + ky * block, C, true);
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
// counts[h], height, width); weight (sum of counts, C, 3, 3), the heads' one after the other.
struct Heads {
  int64_t batch;
  int height, width, channels;
  std::vector<int> counts;
  int outputs() const { return std::accumulate(counts.begin(), counts.end(), 0); }
  size_t place(int o, int c, int ky, int kx) const {
    return ((size_t(o) * channels + c) * 3 + ky) * 3 + kx;
  }

  void forward(const float* x, const float* weight, const std::vector<float*>& logits,
               int threads) const {
    const int C = channels, padded = (outputs() + 7) / 8 * 8, K = 3 * C;
    std::vector<float> matrix(size_t(3) * K * padded);
    for (int ky = 0; ky < 3; ++ky)
      for (int kx = 0; kx < 3; ++kx)
        for (int c = 0; c < C; ++c)
          for (int o = 0; o < outputs(); ++o)
            matrix[(size_t(ky * 3 + kx) * C + c) * padded + o] = weight[place(o, c, ky, kx)];
    const int64_t in_row = int64_t(width) * C, plane = int64_t(height) * width;
    parallel(threads, [&](int task) {
      float* product = scratch(size_t(width) * padded + 3 * size_t(width + 2) * C);
      RowRing ring(product + size_t(width) * padded, 3, width + 2, C);
      const auto make = [&](int64_t row, float* out) {
        std::memcpy(out, x + row * in_row, in_row * sizeof(float));
      };
      const Range range = task_range(batch * height, task);
      for (int64_t row = range.begin; row < range.end; ++row) {
        const int64_t image = row / height;
        const int i = int(row % height);
        bool add = false;
        for (int ky = 0; ky < 3; ++ky)
          if (const float* start = ring.get(image, i - 1 + ky, height, make)) {
            gemm(width, padded, K, start, C, 1, &matrix[size_t(ky) * K * padded], padded, product,
                 padded, add);
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

  void backward(const std::vector<const float*>& dlogits, const float* x, const float* weight,
                float* dx, float* dweight, int threads) const {
    const int C = channels, O = outputs(), K = 3 * O;
    std::vector<float> matrix(size_t(3) * K * C);  // rows (ky, kx, output) of the mirrored kernel
    for (int ky = 0; ky < 3; ++ky)
      for (int kx = 0; kx < 3; ++kx)
        for (int o = 0; o < O; ++o)
          for (int c = 0; c < C; ++c)
            matrix[(size_t(ky * 3 + kx) * O + o) * C + c] = weight[place(o, c, 2 - ky, 2 - kx)];
    const int64_t in_row = int64_t(width) * C, plane = int64_t(height) * width;
    Partials partials(size_t(3) * K * C);
    parallel(threads, [&](int task) {
      float* sum = partials.zeroed_task(task);
      RowRing ring(scratch(3 * size_t(width + 2) * O), 3, width + 2, O);
      const auto make = [&](int64_t row, float* out) {
        const int64_t image = row / height, i = row % height;
        int first = 0;
        for (size_t h = 0; h < counts.size(); first += counts[h++])
          for (int o = 0; o < counts[h]; ++o) {
            const float* from = dlogits[h] + (image * counts[h] + o) * plane + i * width;
            for (int j = 0; j < width; ++j) out[j * O + first + o] = from[j];
          }
      };
      const Range range = task_range(batch * height, task);
      for (int64_t row = range.begin; row < range.end; ++row) {
        bool add = false;
        for (int ky = 0; ky < 3; ++ky)
          if (const float* start = ring.get(row / height, int(row % height) - 1 + ky, height, make)) {
            gemm(width, C, K, start, O, 1, &matrix[size_t(ky) * K * C], C, dx + row * in_row, C, add);
            gemm(K, C, width, start, 1, O, x + row * in_row, C, sum + size_t(ky) * K * C, C, true);
            add = true;
          }
      }
    });
    std::vector<float> total(size_t(3) * K * C);
    partials.total(threads, total.data());
    for (int ky = 0; ky < 3; ++ky)
      for (int kx = 0; kx < 3; ++kx)
        for (int o = 0; o < O; ++o)
          for (int c = 0; c < C; ++c)
            dweight[place(o, c, 2 - ky, 2 - kx)] = total[(size_t(ky * 3 + kx) * O + o) * C + c];
  }
};

}  // namespace portraitnet
