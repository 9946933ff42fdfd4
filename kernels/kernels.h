// The arithmetic of PortraitNet's training on a CPU. No Paddle in here: plain pointers and sizes.
//
// Three ideas make it fast:
// 1. Activations are stored (N, H, W, C): a 1x1 convolution is then one matrix product over all pixels, and
//    every other loop runs over neighbouring channels, which the compiler turns into vector instructions.
// 2. What a convolution stores is its raw output. BatchNorm and ReLU are applied when the next layer loads it
//    into a small buffer that stays in the cache, forward and backward, so memory is crossed once a layer.
// 3. Work is cut into TASKS pieces, whatever the number of threads; each sums on its own, and the sums are
//    added in order. The result is therefore the same to the last bit on one thread or on many.
//
// Every channel count but the photo's and the logits' is a multiple of 8 (`scaled_channels` sees to it).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <vector>

namespace portraitnet {

constexpr int TASKS = 16;

// GCC and Clang vectors: arithmetic on them becomes whatever the processor has.
typedef float Float8 __attribute__((vector_size(32)));
#ifdef __AVX512F__
typedef float Wide __attribute__((vector_size(64)));
constexpr int TILE_ROWS = 8;  // 8 x 3 accumulators of the 32 registers
#else
typedef Float8 Wide;
constexpr int TILE_ROWS = 4;  // 4 x 3 of 16
#endif

// Through memcpy, which compiles to one instruction, because the address need not be aligned.
template <class V>
void load(V& value, const float* from) {
  std::memcpy(&value, from, sizeof(V));
}
template <class V>
void store(float* to, const V& value) {
  std::memcpy(to, &value, sizeof(V));
}
inline Float8 load8(const float* from) {
  Float8 value;
  load(value, from);
  return value;
}

// Calls work(task) for every task; the order does not matter to the result.
template <class Work>
void parallel(int threads, Work work) {
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
  for (int task = 0; task < TASKS; ++task) work(task);
}

struct Range {
  int64_t begin, end;
};

inline Range task_range(int64_t total, int task) { return {total * task / TASKS, total * (task + 1) / TASKS}; }

// A float buffer of the calling thread, kept between calls so that its pages stay mapped.
inline float* scratch(size_t size) {
  static thread_local std::vector<float> buffer;
  if (buffer.size() < size) buffer.resize(size);
  return buffer.data();
}

// Pixels a chunk: what is loaded, multiplied and stored together should stay in the second-level cache.
inline int64_t chunk_pixels(int floats_per_pixel) {
  return std::min<int64_t>(256, std::max<int64_t>(32, 96 * 1024 / floats_per_pixel / 8 * 8));
}

// ---- matrix product ----

// c (ROWS x VECTORS*lanes) = or += a (ROWS x k) times b (k x VECTORS*lanes), all in registers until the end.
template <int ROWS, int VECTORS, class V>
void tile(int k, const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t b_row, float* c, int64_t c_row,
          bool add) {
  constexpr int LANES = sizeof(V) / sizeof(float);
  V sum[ROWS][VECTORS] = {};
  if (add) {
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 3
      for (int v = 0; v < VECTORS; ++v) load(sum[r][v], c + r * c_row + v * LANES);
  }
  for (int p = 0; p < k; ++p) {
    V line[VECTORS];
#pragma GCC unroll 3
    for (int v = 0; v < VECTORS; ++v) load(line[v], b + p * b_row + v * LANES);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 3
      for (int v = 0; v < VECTORS; ++v) sum[r][v] += a[r * a_row + p * a_col] * line[v];
  }
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 3
    for (int v = 0; v < VECTORS; ++v) store(c + r * c_row + v * LANES, sum[r][v]);
}

// The rows of one panel of VECTORS*lanes columns.
template <int VECTORS, class V>
void panel(int64_t m, int k, const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t b_row, float* c,
           int64_t c_row, bool add) {
  int64_t i = 0;
  for (; i + TILE_ROWS <= m; i += TILE_ROWS)
    tile<TILE_ROWS, VECTORS, V>(k, a + i * a_row, a_row, a_col, b, b_row, c + i * c_row, c_row, add);
  for (; i + 2 <= m; i += 2)
    tile<2, VECTORS, V>(k, a + i * a_row, a_row, a_col, b, b_row, c + i * c_row, c_row, add);
  if (i < m) tile<1, VECTORS, V>(k, a + i * a_row, a_row, a_col, b, b_row, c + i * c_row, c_row, add);
}

// c (m x n) = or += a (m x k) b (k x n). n is a multiple of 8. a's strides are free, so that a transposed matrix and
// the overlapping windows of a convolution are read where they stand; rows of b and c are contiguous.
inline void gemm(int64_t m, int n, int k, const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t b_row,
                 float* c, int64_t c_row, bool add) {
  constexpr int LANES = sizeof(Wide) / sizeof(float);
  int j = 0;
  for (; j + 3 * LANES <= n; j += 3 * LANES) panel<3, Wide>(m, k, a, a_row, a_col, b + j, b_row, c + j, c_row, add);
  for (; j + 2 * LANES <= n; j += 2 * LANES) panel<2, Wide>(m, k, a, a_row, a_col, b + j, b_row, c + j, c_row, add);
  for (; j + LANES <= n; j += LANES) panel<1, Wide>(m, k, a, a_row, a_col, b + j, b_row, c + j, c_row, add);
  for (; j < n; j += 8) panel<1, Float8>(m, k, a, a_row, a_col, b + j, b_row, c + j, c_row, add);
}

// ---- BatchNorm and activation ----

// What stands between a raw convolution output and its reader: min(max(raw * scale + shift, low), high).
// ReLU6 is (0, 6), ReLU (0, inf), none (-inf, inf). Without `scale` the value is used as it is.
struct Norm {
  const float* scale = nullptr;
  const float* shift = nullptr;
  const float* mean = nullptr;
  float low = -INFINITY, high = INFINITY;
};

// Gradient of a raw convolution output from the gradient dz of its normalised value: a * dz + b * raw + c per channel.
struct Gradient {
  std::vector<float> a, b, c;
};

inline void activate(const float* raw, int64_t pixels, int channels, const Norm& norm, float* out) {
  if (!norm.scale) {
    std::memcpy(out, raw, pixels * channels * sizeof(float));
    return;
  }
  const float low = norm.low, high = norm.high;
  for (int64_t i = 0; i < pixels; ++i, raw += channels, out += channels)
#pragma GCC ivdep
    for (int c = 0; c < channels; ++c) {
      float value = raw[c] * norm.scale[c] + norm.shift[c];
      value = value < low ? low : value;
      out[c] = value > high ? high : value;
    }
}

inline void raw_gradient(const float* dz, const float* raw, int64_t pixels, int channels, const Gradient& g,
                         float* out) {
  const float *a = g.a.data(), *b = g.b.data(), *c = g.c.data();
  for (int64_t i = 0; i < pixels; ++i, dz += channels, raw += channels, out += channels)
#pragma GCC ivdep
    for (int k = 0; k < channels; ++k) out[k] = a[k] * dz[k] + b[k] * raw[k] + c[k];
}

// Per task and channel two sums in double; `add_*` sums a few rows in float first.
struct Sums {
  int channels;
  std::vector<double> first, second;
  explicit Sums(int channels) : channels(channels), first(TASKS * channels), second(TASKS * channels) {}
  void total(double* one, double* two) const {
    for (int c = 0; c < channels; ++c) {
      one[c] = two[c] = 0;
      for (int task = 0; task < TASKS; ++task) {
        one[c] += first[task * channels + c];
        two[c] += second[task * channels + c];
      }
    }
  }
  void add(int task, const float* one, const float* two) {
    for (int c = 0; c < channels; ++c) {
      first[task * channels + c] += one[c];
      second[task * channels + c] += two[c];
    }
  }
};

// Sum and sum of squares of raw outputs, for BatchNorm's mean and variance.
inline void add_moments(const float* raw, int64_t pixels, int task, Sums& sums) {
  const int channels = sums.channels;
  float one[channels], two[channels];
  std::fill(one, one + channels, 0.f);
  std::fill(two, two + channels, 0.f);
  for (int64_t i = 0; i < pixels; ++i, raw += channels)
#pragma GCC ivdep
    for (int c = 0; c < channels; ++c) {
      one[c] += raw[c];
      two[c] += raw[c] * raw[c];
    }
  sums.add(task, one, two);
}

// dz = dx where the activation let the value pass, else 0; sums of dz and dz * (raw - mean) for BatchNorm's backward.
// `value` is the activated one: strictly between the limits where the activation was open.
inline void store_gradient(const float* dx, const float* value, const float* raw, int64_t pixels, const Norm& norm,
                           float* dz, int task, Sums& sums) {
  const int channels = sums.channels;
  const float low = norm.low, high = norm.high;
  const float* mean = norm.mean;
  float one[channels], two[channels];
  std::fill(one, one + channels, 0.f);
  std::fill(two, two + channels, 0.f);
  for (int64_t i = 0; i < pixels; ++i, dx += channels, value += channels, raw += channels, dz += channels)
#pragma GCC ivdep
    for (int c = 0; c < channels; ++c) {
      const float passed = (value[c] > low) & (value[c] < high) ? dx[c] : 0.f;
      dz[c] = passed;
      one[c] += passed;
      two[c] += passed * (raw[c] - mean[c]);
    }
  sums.add(task, one, two);
}

// ---- weight gradients: one buffer a task, added in order ----

struct Partials {
  size_t size;
  std::vector<float> values;
  explicit Partials(size_t size) : size(size), values(TASKS * size) {}
  float* task(int task) { return values.data() + task * size; }
  void total(int threads, float* out) {
    parallel(threads, [&](int piece) {
      const Range range = task_range(size, piece);
      std::copy(values.begin() + range.begin, values.begin() + range.end, out + range.begin);
      for (int task = 1; task < TASKS; ++task)
        for (int64_t i = range.begin; i < range.end; ++i) out[i] += values[task * size + i];
    });
  }
};

// ---- 1x1 convolution ----

// x (pixels, input_c) raw -> y (pixels, output_c) raw. weight (output_c, input_c) as Paddle stores it.
inline void pointwise_forward(const float* x, const Norm& norm, const float* weight, int64_t pixels, int input_c,
                              int output_c, float* y, Sums& sums, int threads) {
  std::vector<float> matrix(size_t(input_c) * output_c);
  for (int o = 0; o < output_c; ++o)
    for (int i = 0; i < input_c; ++i) matrix[size_t(i) * output_c + o] = weight[size_t(o) * input_c + i];
  const int64_t chunk = chunk_pixels(input_c + output_c);
  parallel(threads, [&](int task) {
    float* buffer = scratch(chunk * input_c);
    const Range range = task_range(pixels, task);
    for (int64_t p = range.begin; p < range.end; p += chunk) {
      const int64_t count = std::min(chunk, range.end - p);
      const float* a = x + p * input_c;
      if (norm.scale) activate(a, count, input_c, norm, buffer), a = buffer;
      gemm(count, output_c, input_c, a, input_c, 1, matrix.data(), output_c, y + p * output_c, output_c, false);
      add_moments(y + p * output_c, count, task, sums);
    }
  });
}

// dz (pixels, output_c): gradient of y's normalised value. Writes dx (pixels, input_c): gradient of x's normalised
// value with its sums, or of x itself where there is no norm; and the weight's gradient.
inline void pointwise_backward(const float* dz, const float* y, const Gradient& gradient, const float* x,
                               const Norm& norm, const float* weight, int64_t pixels, int input_c, int output_c,
                               float* dx, Sums& sums, float* dweight, int threads) {
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
      gemm(output_c, input_c, count, g, 1, output_c, a, input_c, partials.task(task), input_c, true);
      gemm(count, input_c, output_c, g, output_c, 1, weight, input_c, norm.scale ? product : out, input_c, false);
      if (norm.scale) store_gradient(product, active, x + p * input_c, count, norm, out, task, sums);
    }
  });
  partials.total(threads, dweight);
}

// ---- 3x3 depthwise convolution ----

struct Grid {
  int64_t batch;
  int height, width, channels, stride;
  int out_height() const { return (height - 1) / stride + 1; }
  int out_width() const { return (width - 1) / stride + 1; }
};

// The last three rows that were asked for, each made once by `fill(row, destination)`, with zeros left and right.
class RowRing {
 public:
  RowRing(float* memory, int width, int padded_width, int channels)
      : memory_(memory), size_(int64_t(padded_width) * channels), channels_(channels) {
    std::memset(memory, 0, 3 * size_ * sizeof(float));
  }
  // `row` of image `image`, null outside of the image.
  template <class Fill>
  const float* get(int64_t image, int row, int height, Fill fill) {
    if (row < 0 || row >= height) return nullptr;
    const int slot = row % 3;
    float* start = memory_ + slot * size_;
    if (rows_[slot] != image * height + row) fill(rows_[slot] = image * height + row, start + channels_);
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
void depthwise_block(const float* const rows[3], const float* weight, int j, int channels, float* y) {
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
void depthwise_forward(const float* x, const Norm& norm, const float* weight, const Grid& grid, float* y, Sums& sums,
                       int threads) {
  const int channels = grid.channels, out_width = grid.out_width(), out_height = grid.out_height();
  const int64_t in_row = int64_t(grid.width) * channels, out_row = int64_t(out_width) * channels;
  const std::vector<float> taps = transpose(weight, channels, 9);
  const int padded = grid.width + 2;
  parallel(threads, [&](int task) {
    RowRing ring(scratch(3 * int64_t(padded) * channels), grid.width, padded, channels);
    auto fill = [&](int64_t row, float* out) { activate(x + row * in_row, grid.width, channels, norm, out); };
    const Range range = task_range(grid.batch * out_height, task);
    for (int64_t row = range.begin; row < range.end; ++row) {
      const float* rows[3];
      for (int ky = 0; ky < 3; ++ky)
        rows[ky] = ring.get(row / out_height, int(row % out_height) * STRIDE - 1 + ky, grid.height, fill);
      float* out = y + row * out_row;
      int j = 0;
      for (; j + 4 <= out_width; j += 4) depthwise_block<STRIDE, 4>(rows, taps.data(), j, channels, out);
      for (; j < out_width; ++j) depthwise_block<STRIDE, 1>(rows, taps.data(), j, channels, out);
      add_moments(out, out_width, task, sums);
    }
  });
}

// Four neighbouring input pixels from column j: dx and the sums for the nine taps in one go.
// rows[ky] is the gradient row that tap ky joins to this input row, with one zero column on the left.
template <int STRIDE>
void depthwise_backward_block(const float* const rows[3], const float* x, const float* weight, int j, int channels,
                              float* dx, float* dweight) {
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
          const int shift = t + 1 - kx;  // input column j + t meets output column (j + shift) / STRIDE
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
void depthwise_backward(const float* dz, const float* y, const Gradient& gradient, const float* x, const Norm& norm,
                        const float* weight, const Grid& grid, float* dx, Sums& sums, float* dweight, int threads) {
  const int channels = grid.channels, out_width = grid.out_width(), out_height = grid.out_height();
  const int64_t in_row = int64_t(grid.width) * channels, out_row = int64_t(out_width) * channels;
  const std::vector<float> taps = transpose(weight, channels, 9);
  Partials partials(size_t(9) * channels);
  const int whole = (grid.width + 3) / 4 * 4, padded = whole + 2;  // blocks of four columns, zeros beyond the image
  parallel(threads, [&](int task) {
    float* active = scratch((2 * int64_t(whole) + 3 * int64_t(padded)) * channels);
    float* product = active + int64_t(whole) * channels;
    std::memset(active, 0, int64_t(whole) * channels * sizeof(float));
    RowRing ring(product + int64_t(whole) * channels, out_width, padded, channels);
    auto fill = [&](int64_t row, float* out) {
      raw_gradient(dz + row * out_row, y + row * out_row, out_width, channels, gradient, out);
    };
    const Range range = task_range(grid.batch * grid.height, task);
    for (int64_t row = range.begin; row < range.end; ++row) {
      const float* rows[3];
      for (int ky = 0; ky < 3; ++ky) {
        const int above = int(row % grid.height) + 1 - ky;
        rows[ky] = above % STRIDE ? nullptr : ring.get(row / grid.height, above / STRIDE, out_height, fill);
      }
      activate(x + row * in_row, grid.width, channels, norm, active);
      for (int j = 0; j < whole; j += 4)
        depthwise_backward_block<STRIDE>(rows, active, taps.data(), j, channels, product, partials.task(task));
      if (norm.scale)
        store_gradient(product, active, x + row * in_row, grid.width, norm, dx + row * in_row, task, sums);
      else
        std::memcpy(dx + row * in_row, product, in_row * sizeof(float));
    }
  });
  std::vector<float> total(size_t(9) * channels);
  partials.total(threads, total.data());
  std::memcpy(dweight, transpose(total.data(), 9, channels).data(), total.size() * sizeof(float));
}

// ---- the end of a chain of convolutions: out = activation(normalised raw + residual) ----

inline void finish_forward(const float* raw, const Norm& norm, const float* residual, int64_t pixels, int channels,
                           float* out, int threads) {
  parallel(threads, [&](int task) {
    const Range range = task_range(pixels, task);
    for (int64_t p = range.begin * channels; p < range.end * channels; p += channels)
#pragma GCC ivdep
      for (int c = 0; c < channels; ++c) {
        float value = raw[p + c] * norm.scale[c] + norm.shift[c] + (residual ? residual[p + c] : 0.f);
        value = value < norm.low ? norm.low : value;
        out[p + c] = value > norm.high ? norm.high : value;
      }
  });
}

// dz: gradient of the sum before the activation, that is of the residual too.
inline void finish_backward(const float* dout, const float* out, const float* raw, const Norm& norm, int64_t pixels,
                            float* dz, Sums& sums, int threads) {
  const int channels = sums.channels;
  const int64_t chunk = chunk_pixels(3 * channels);
  parallel(threads, [&](int task) {
    const Range range = task_range(pixels, task);
    for (int64_t p = range.begin; p < range.end; p += chunk)
      store_gradient(dout + p * channels, out + p * channels, raw + p * channels, std::min(chunk, range.end - p), norm,
                     dz + p * channels, task, sums);
  });
}

// ---- small dense convolutions: stem, heads, transposed ----
//
// `count` neighbouring rows are interleaved column by column, (columns, count, channels), with zero columns around
// the image. The window of a convolution is then one contiguous run, and a row of outputs one matrix product.

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
  // Place r of every column from an image row; values of a pixel are `step` apart, pixels `pixel`. Null is zeros.
  void set(int r, const float* row, int64_t pixel, int64_t step, int first = 0, int channels = 0) {
    channels = channels ? channels : channels_;
    for (int j = 0; j < width_; ++j) {
      float* out = memory_ + (int64_t(left_ + j) * count_ + r) * channels_ + first;
      if (!row)
        std::memset(out, 0, channels * sizeof(float));
      else if (step == 1)  // channels last, a multiple of 8
        for (int c = 0; c < channels; c += 8) store(out + c, load8(row + j * pixel + c));
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

// x (batch, 3, height, width) -> y (batch, height/2, width/2, output_c). weight (output_c, 3, 3, 3).
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

  static int64_t place(int o, int c, int ky, int kx) { return ((int64_t(o) * C + c) * 3 + ky) * 3 + kx; }

  void forward(const float* x, const float* weight, float* y, Sums& sums, int threads) const {
    std::vector<float> matrix(size_t(K) * output_c);
    for (int kx = 0; kx < 3; ++kx)
      for (int ky = 0; ky < 3; ++ky)
        for (int c = 0; c < C; ++c)
          for (int o = 0; o < output_c; ++o)
            matrix[size_t((kx * 3 + ky) * C + c) * output_c + o] = weight[place(o, c, ky, kx)];
    parallel(threads, [&](int task) {
      Window window(scratch(window_size()), 3, C, width, 1, 1);
      const Range range = task_range(batch * out_height(), task);
      for (int64_t row = range.begin; row < range.end; ++row) {
        fill(window, x, row);
        float* out = y + row * out_width() * output_c;
        gemm(out_width(), output_c, K, window.column(0), 2 * window.pitch(), 1, matrix.data(), output_c, out, output_c,
             false);
        add_moments(out, out_width(), task, sums);
      }
    });
  }

  void backward(const float* dz, const float* y, const Gradient& gradient, const float* x, float* dweight,
                int threads) const {
    Partials partials(size_t(K) * output_c);
    parallel(threads, [&](int task) {
      float* g = scratch(window_size() + size_t(out_width()) * output_c);
      Window window(g + size_t(out_width()) * output_c, 3, C, width, 1, 1);
      const Range range = task_range(batch * out_height(), task);
      for (int64_t row = range.begin; row < range.end; ++row) {
        fill(window, x, row);
        const int64_t start = row * out_width() * output_c;
        raw_gradient(dz + start, y + start, out_width(), output_c, gradient, g);
        gemm(K, output_c, out_width(), window.column(0), 1, 2 * window.pitch(), g, output_c, partials.task(task),
             output_c, true);
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

// 4x4 stride-2 transposed convolution, padding 1: x (batch, height, width, C) -> y (batch, 2 height, 2 width, C).
// weight (C in, C out, 4, 4). Output row 2i+a takes two taps from input row i and two from row i-1+2a, columns alike.
struct Upsample {
  int64_t batch;
  int height, width, channels;
  size_t place(int in, int out, int ky, int kx) const { return ((size_t(in) * channels + out) * 4 + ky) * 4 + kx; }

  const float* row_of(const float* image, int row, int rows, int64_t size) const {
    return row < 0 || row >= rows ? nullptr : image + row * size;
  }

  void forward(const float* x, const float* weight, float* y, int threads) const {
    const int C = channels;
    const size_t block = size_t(4) * C * C;
    std::vector<float> matrix(4 * block);  // one for each parity (a, b): rows (column, row, input channel)
    for (int a = 0; a < 2; ++a)
      for (int b = 0; b < 2; ++b)
        for (int s = 0; s < 2; ++s)
          for (int r = 0; r < 2; ++r)
            for (int i = 0; i < C; ++i)
              for (int o = 0; o < C; ++o) {
                const int ky = r == 0 ? 1 + a : 3 - 3 * a, kx = 3 - 2 * s - b;
                matrix[(a * 2 + b) * block + (size_t(s * 2 + r) * C + i) * C + o] = weight[place(i, o, ky, kx)];
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
            gemm(width, C, 4 * C, window.column(b), window.pitch(), 1, matrix.data() + (a * 2 + b) * block, C,
                 y + (2 * row + a) * out_row + b * C, 2 * C, false);
        }
      }
    });
  }

  void backward(const float* dy, const float* x, const float* weight, float* dx, float* dweight, int threads) const {
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
      Window window(scratch(Window::size(4, C, 2 * width, 1, 1)), 4, C, 2 * width, 1, 1);
      const Range range = task_range(batch * height, task);
      for (int64_t row = range.begin; row < range.end; ++row) {
        const float* image = dy + row / height * height * 2 * out_row;
        const int i = int(row % height);
        for (int ky = 0; ky < 4; ++ky) window.set(ky, row_of(image, 2 * i - 1 + ky, 2 * height, out_row), C, 1);
        gemm(width, C, K, window.column(0), 2 * window.pitch(), 1, matrix.data(), C, dx + row * in_row, C, false);
        gemm(K, C, width, window.column(0), 1, 2 * window.pitch(), x + row * in_row, C, partials.task(task), C, true);
      }
    });
    std::vector<float> total(size_t(K) * C);
    partials.total(threads, total.data());
    for (int kx = 0; kx < 4; ++kx)
      for (int ky = 0; ky < 4; ++ky)
        for (int o = 0; o < C; ++o)
          for (int i = 0; i < C; ++i) dweight[place(i, o, ky, kx)] = total[(size_t(kx * 4 + ky) * C + o) * C + i];
  }
};

// One or two 3x3 heads on the same features: x (batch, height, width, C) -> logits (batch, counts[h], height, width).
// weight (sum of counts, C, 3, 3): the heads' weights one after the other.
struct Heads {
  int64_t batch;
  int height, width, channels;
  std::vector<int> counts;
  int outputs() const { return std::accumulate(counts.begin(), counts.end(), 0); }
  size_t place(int o, int c, int ky, int kx) const { return ((size_t(o) * channels + c) * 3 + ky) * 3 + kx; }

  const float* row_of(const float* image, int row, int64_t size) const {
    return row < 0 || row >= height ? nullptr : image + row * size;
  }

  void forward(const float* x, const float* weight, const std::vector<float*>& logits, int threads) const {
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
        for (int r = 0; r < 3; ++r) window.set(r, row_of(x + image * height * in_row, i - 1 + r, in_row), C, 1);
        gemm(width, padded, K, window.column(0), window.pitch(), 1, matrix.data(), padded, product, padded, false);
        int first = 0;
        for (size_t h = 0; h < counts.size(); first += counts[h++])
          for (int o = 0; o < counts[h]; ++o) {
            float* out = logits[h] + (image * counts[h] + o) * plane + int64_t(i) * width;
            for (int j = 0; j < width; ++j) out[j] = product[j * padded + first + o];
          }
      }
    });
  }

  void backward(const std::vector<const float*>& dlogits, const float* x, const float* weight, float* dx,
                float* dweight, int threads) const {
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
      Window window(scratch(Window::size(3, O, width, 1, 1)), 3, O, width, 1, 1);
      const Range range = task_range(batch * height, task);
      for (int64_t row = range.begin; row < range.end; ++row) {
        const int64_t image = row / height;
        const int i = int(row % height);
        int first = 0;
        for (size_t h = 0; h < counts.size(); first += counts[h++])
          for (int r = 0; r < 3; ++r)
            window.set(r, row_of(dlogits[h] + image * counts[h] * plane, i - 1 + r, width), 1, plane, first, counts[h]);
        gemm(width, C, K, window.column(0), window.pitch(), 1, matrix.data(), C, dx + row * in_row, C, false);
        gemm(K, C, width, window.column(0), 1, window.pitch(), x + row * in_row, C, partials.task(task), C, true);
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
