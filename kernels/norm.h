// BatchNorm and activation, applied where a raw convolution output is loaded or stored.
#pragma once

#include "basics.h"

namespace portraitnet {

// What stands between a raw convolution output and its reader: raw * scale + shift, then clipped to
// low..high. ReLU6 is (0, 6), ReLU (0, inf), none (-inf, inf). No `scale`: nothing stands between.
struct Norm {
  const float* scale = nullptr;
  const float* shift = nullptr;
  const float* mean = nullptr;
  float low = -INFINITY, high = INFINITY;
};

// Gradient of a raw convolution output from dz, the gradient of its normalised value: per channel
// a * dz + b * raw + c.
struct Gradient {
  std::vector<float> a, b, c;
};

// Pointers and limits are copied to local variables here and below: a store might change what a
// reference refers to, for all the compiler knows, and it would load that again for each vector.
template <class T>
void activate(const T* raw, int64_t pixels, int channels, const Norm& norm, float* out) {
  const float *scale = norm.scale, *shift = norm.shift, low = norm.low, high = norm.high;
  for (int64_t i = 0; i < pixels; ++i, raw += channels, out += channels)
    each_vector(channels, [=](auto vector, int c) {
      using V = decltype(vector);
      V value = load<V>(raw + c);
      if (scale) value = clip(value * load<V>(scale + c) + load<V>(shift + c), low, high);
      store(out + c, value);
    });
}

template <class T>
void raw_gradient(const T* dz, const T* raw, int64_t pixels, int channels, const Gradient& g,
                  float* out) {
  const float *a = g.a.data(), *b = g.b.data(), *c = g.c.data();
  for (int64_t i = 0; i < pixels; ++i, dz += channels, raw += channels, out += channels)
    each_vector(channels, [=](auto vector, int k) {
      using V = decltype(vector);
      store(out + k, load<V>(a + k) * load<V>(dz + k) +
                         (load<V>(b + k) * load<V>(raw + k) + load<V>(c + k)));
    });
}

// Per task and channel two sums in double, of sums of a few rows in float.
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

// The two sums of a few rows, in float.
struct RowSums {
  std::vector<float> values;
  float *one, *two;
  explicit RowSums(int channels)
      : values(2 * channels + 16), one(aligned(&values[0])), two(one + channels) {}
  // Adds them to a task's sums and begins anew.
  void flush(int task, Sums& sums) {
    sums.add(task, one, two);
    std::fill(values.begin(), values.end(), 0.f);
  }
};

template <class V>
void accumulate(float* sum, V value) {
  store(sum, load<V>(sum) + value);
}

// Sum and sum of squares of raw outputs, for BatchNorm's mean and variance.
inline void add_moments(const float* raw, int64_t pixels, int task, Sums& sums) {
  const int channels = sums.channels;
  RowSums rows(channels);
  float *one = rows.one, *two = rows.two;
  for (int64_t i = 0; i < pixels; ++i, raw += channels)
    each_vector(channels, [=](auto vector, int c) {
      const auto value = load<decltype(vector)>(raw + c);
      accumulate(one + c, value);
      accumulate(two + c, value * value);
    });
  rows.flush(task, sums);
}

// dz = dx where the activation let the value pass, else 0; sums of dz and dz * (raw - mean) for
// BatchNorm's backward. `value` is the activated one: strictly between the limits where the
// activation was open.
template <class D, class A, class T>
void store_gradient(const D* dx, const A* value, const T* raw, int64_t pixels, const Norm& norm,
                    T* dz, int task, Sums& sums) {
  const int channels = sums.channels;
  const float *mean = norm.mean, low = norm.low, high = norm.high;
  RowSums rows(channels);
  float *one = rows.one, *two = rows.two;
  for (int64_t i = 0; i < pixels;
       ++i, dx += channels, value += channels, raw += channels, dz += channels)
    each_vector(channels, [=](auto vector, int c) {
      using V = decltype(vector);
      const V passed = where_between(load<V>(value + c), low, high, load<V>(dx + c));
      store(dz + c, passed);
      accumulate(one + c, passed);
      accumulate(two + c, passed * (load<V>(raw + c) - load<V>(mean + c)));
    });
  rows.flush(task, sums);
}

// The end of a chain of convolutions: out = activation(normalised raw + residual).
template <class T>
void finish_forward(const T* raw, const Norm& norm, const T* residual, int64_t pixels,
                    int channels, T* out, int threads) {
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

// dz: gradient of the sum before the activation, that is of the residual too.
template <class T>
void finish_backward(const T* dout, const T* out, const T* raw, const Norm& norm, int64_t pixels,
                     T* dz, Sums& sums, int threads) {
  const int channels = sums.channels;
  const int64_t chunk = chunk_pixels(3 * channels);
  parallel(threads, [&](int task) {
    const Range range = task_range(pixels, task);
    for (int64_t p = range.begin; p < range.end; p += chunk)
      store_gradient(dout + p * channels, out + p * channels, raw + p * channels,
                     std::min(chunk, range.end - p), norm, dz + p * channels, task, sums);
  });
}

}  // namespace portraitnet
