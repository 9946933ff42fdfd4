// BatchNorm and activation, applied while a raw convolution output is loaded or stored.
#pragma once

#include "basics.h"

namespace portraitnet {

// The operation between a raw convolution output and its reader: raw * scale + shift, then clipped
// to low..high. ReLU6 is (0, 6), ReLU (0, inf), no activation (-inf, inf). Without `scale` the
// reader gets the raw output.
struct Norm {
  const float* scale = nullptr;
  const float* shift = nullptr;
  const float* mean = nullptr;
  float low = -INFINITY, high = INFINITY;
};

// The gradient of a raw convolution output from dz, the gradient of its normalised value: in each
// channel a * dz + b * raw + c.
struct Gradient {
  std::vector<float> a, b, c;
};

// In the following functions value(V{}, i, c) is the vector of channels c, c + 1, ... of the pixel
// whose channels start at index i. They capture copies of pointers and limits. With references the
// compiler would load these again after each store, because a store might change them.

// The value that the reader of a raw output gets.
template <class T>
auto activated(const T* raw, const Norm& norm) {
  const float *scale = norm.scale, *shift = norm.shift, low = norm.low, high = norm.high;
  return [=](auto vector, int64_t i, int c) __attribute__((always_inline)) {
    using V = decltype(vector);
    const V value = load<V>(raw + i + c);
    return scale ? clip(value * load<V>(scale + c) + load<V>(shift + c), low, high) : value;
  };
}

template <class T>
auto raw_gradient(const T* dz, const T* raw, const Gradient& g) {
  const float *a = g.a.data(), *b = g.b.data(), *c = g.c.data();
  return [=](auto vector, int64_t i, int k) __attribute__((always_inline)) {
    using V = decltype(vector);
    return load<V>(a + k) * load<V>(dz + i + k) +
           (load<V>(b + k) * load<V>(raw + i + k) + load<V>(c + k));
  };
}

// Writes values of all pixels and channels as rows.
template <class Value, class T>
void fill(int64_t pixels, int channels, Value value, T* rows) {
  for (int64_t i = 0; i < pixels * channels; i += channels)
    each_vector(channels, [=](auto vector, int c) { store(rows + i + c, value(vector, i, c)); });
}

#ifdef __AVX512BF16__
// Writes values as rows (if `rows` is not null) and as pairs of two pixels' values of one channel.
// The last of an odd number of pixels is paired with 0.
template <class Value>
void fill(int64_t pixels, int channels, Value value, BFloat16* rows, BFloat16Pair* pairs) {
  for (int64_t p = 0; p < pixels; p += 2) {
    const bool both = p + 1 < pixels;
    const int64_t i = p * channels;
    each_vector(channels, [=](auto vector, int c) {
      using V = decltype(vector);
      const V first = value(vector, i, c), second = both ? value(vector, i + channels, c) : V{};
      const auto bits = narrow(first, second);
      store_pairs(pairs + i / 2 + c, bits);
      if (!rows) return;
      std::memcpy(rows + i + c, &bits, sizeof(bits) / 2);
      if (both)
        std::memcpy(rows + i + channels + c, (const char*)&bits + sizeof(bits) / 2,
                    sizeof(bits) / 2);
    });
  }
}
#endif

// The factors of a sum over pixels: the rows themselves, or pairs of rows in `memory`.
template <class T, class X>
const typename Factor<T>::type* pixel_factors(const X* rows, int64_t pixels, int channels,
                                              typename Factor<T>::type* memory) {
  if constexpr (PACK<T> == 1) {
    return rows;
  } else {
    fill(pixels, channels, activated(rows, Norm()), static_cast<T*>(nullptr), memory);
    return memory;
  }
}

// Two sums in double for each task and channel; the summands are RowSums.
struct Sums {
  int channels;
  std::vector<double> first, second;
  explicit Sums(int channels)
      : channels(channels), first(TASKS * channels), second(TASKS * channels) {}
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

// The two sums of each channel over a few rows, in float.
struct RowSums {
  std::vector<float> values;
  float *one, *two;
  explicit RowSums(int channels)
      : values(2 * channels + 16), one(aligned(&values[0])), two(one + channels) {}
  // Adds the values to a task's sums and sets them to 0.
  void flush(int task, Sums& sums) {
    sums.add(task, one, two);
    std::fill(values.begin(), values.end(), 0.f);
  }
};

template <class V>
void accumulate(float* sum, V value) {
  store(sum, load<V>(sum) + value);
}

// The output of a product that is a convolution's raw output. Values are stored; the values and
// their squares are summed for BatchNorm's mean and variance.
template <class T>
struct RawOutput {
  T* raw;
  int channels;
  float *one, *two;  // RowSums
  template <class V>
  V begin(int64_t, int) const {
    return V{};
  }
  template <class V, int ROWS>
  void finish(const V (&sums)[ROWS], int64_t i, int c) const {
    V first = load<V>(one + c), second = load<V>(two + c);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) {
      store(raw + (i + r) * channels + c, sums[r]);
      first += sums[r];
      second += sums[r] * sums[r];
    }
    store(one + c, first), store(two + c, second);
  }
};

// The output of a product that is the gradient of an activated value. It stores dz, the gradient
// before the activation: the same if `value`, the activated value, is strictly between the limits,
// else 0. It sums dz and dz * (raw - mean) for BatchNorm's backward pass.
template <class Value, class T>
struct PassedGradient {
  Value value;
  const T* raw;
  T* dz;
  int channels;
  const float* mean;
  float low, high;
  float *one, *two;  // RowSums
  template <class V>
  V begin(int64_t, int) const {
    return V{};
  }
  template <class V, int ROWS>
  void finish(const V (&gradients)[ROWS], int64_t i, int c) const {
    V first = load<V>(one + c), second = load<V>(two + c);
    const V center = load<V>(mean + c);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) {
      const int64_t at = (i + r) * channels;
      const V passed = where_between(value(V{}, at, c), low, high, gradients[r]);
      store(dz + at + c, passed);
      first += passed;
      second += passed * (load<V>(raw + at + c) - center);
    }
    store(one + c, first), store(two + c, second);
  }
};
template <class Value, class T>
PassedGradient<Value, T> passed_gradient(Value value, const T* raw, T* dz, const Norm& norm,
                                         RowSums& rows, int channels) {
  return {value, raw, dz, channels, norm.mean, norm.low, norm.high, rows.one, rows.two};
}

// The end of a chain of convolutions: out = activation(normalised raw + residual).
template <class T>
void finish_forward(const T* raw, const Norm& norm, const float* residual, int64_t pixels,
                    int channels, float* out, int threads) {
  const float *scale = norm.scale, *shift = norm.shift, low = norm.low, high = norm.high;
  parallel(threads, [=](int task) {
    const Range range = task_range(pixels, task);
    for (int64_t p = range.begin * channels; p < range.end * channels; p += channels)
      each_vector(channels, [=](auto vector, int c) {
        using V = decltype(vector);
        V value = load<V>(raw + p + c) * load<V>(scale + c) + load<V>(shift + c);
        if (residual) value += load<V>(residual + p + c);
        store(out + p + c, clip(value, low, high));
      });
  });
}

// dz: gradient of the sum before the activation, which is also the gradient of the residual.
// `dresidual` receives it as floats if dz has another type. `out` may be null if there are no
// limits.
template <class T>
void finish_backward(const float* dout, const float* out, const T* raw, const Norm& norm,
                     int64_t pixels, T* dz, float* dresidual, Sums& sums, int threads) {
  const int channels = sums.channels;
  const float low = norm.low, high = norm.high;
  const int64_t chunk = chunk_pixels(3 * channels);
  parallel(threads, [&](int task) {
    RowSums rows(channels);
    const Range range = task_range(pixels, task);
    for (int64_t p = range.begin; p < range.end; p += chunk) {
      const int64_t count = std::min(chunk, range.end - p), start = p * channels;
      const float *from = dout + start, *value = out ? out + start : nullptr;
      const auto reached = [=](auto vector, int64_t i, int c) __attribute__((always_inline)) {
        using V = decltype(vector);
        return value ? load<V>(value + i + c) : V{};
      };
      const auto out = passed_gradient(reached, raw + start, dz + start, norm, rows, channels);
      for (int64_t i = 0; i < count; ++i)
        each_vector(channels, [=](auto vector, int c) {
          using V = decltype(vector);
          const V gradient[1] = {load<V>(from + i * channels + c)};
          out.finish(gradient, i, c);
        });
      rows.flush(task, sums);
      if (!dresidual) continue;
      const auto passed = [=](auto vector, int64_t i, int c) __attribute__((always_inline)) {
        return where_between(reached(vector, i, c), low, high,
                             load<decltype(vector)>(from + i + c));
      };
      fill(count, channels, passed, dresidual + start);
    }
  });
}

}  // namespace portraitnet
