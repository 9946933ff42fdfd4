// BatchNorm and activation, applied where a raw convolution output is loaded or stored.
#pragma once

#include <cmath>

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

inline void raw_gradient(const float* dz, const float* raw, int64_t pixels, int channels,
                         const Gradient& g, float* out) {
  const float *a = g.a.data(), *b = g.b.data(), *c = g.c.data();
  for (int64_t i = 0; i < pixels; ++i, dz += channels, raw += channels, out += channels)
#pragma GCC ivdep
    for (int k = 0; k < channels; ++k) out[k] = a[k] * dz[k] + b[k] * raw[k] + c[k];
}

// Per task and channel two sums in double; `add_*` sums a few rows in float first.
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

// dz = dx where the activation let the value pass, else 0; sums of dz and dz * (raw - mean) for
// BatchNorm's backward. `value` is the activated one: strictly between the limits where the
// activation was open.
inline void store_gradient(const float* dx, const float* value, const float* raw, int64_t pixels,
                           const Norm& norm, float* dz, int task, Sums& sums) {
  const int channels = sums.channels;
  const float low = norm.low, high = norm.high;
  const float* mean = norm.mean;
  float one[channels], two[channels];
  std::fill(one, one + channels, 0.f);
  std::fill(two, two + channels, 0.f);
  for (int64_t i = 0; i < pixels;
       ++i, dx += channels, value += channels, raw += channels, dz += channels)
#pragma GCC ivdep
    for (int c = 0; c < channels; ++c) {
      const float passed = (value[c] > low) & (value[c] < high) ? dx[c] : 0.f;
      dz[c] = passed;
      one[c] += passed;
      two[c] += passed * (raw[c] - mean[c]);
    }
  sums.add(task, one, two);
}

// The end of a chain of convolutions: out = activation(normalised raw + residual).
inline void finish_forward(const float* raw, const Norm& norm, const float* residual,
                           int64_t pixels, int channels, float* out, int threads) {
  parallel(threads, [&](int task) {
    const Range range = task_range(pixels, task);
    for (int64_t p = range.begin * channels; p < range.end * channels; p += channels)
#pragma GCC ivdep
      for (int c = 0; c < channels; ++c) {
        float value =
            raw[p + c] * norm.scale[c] + norm.shift[c] + (residual ? residual[p + c] : 0.f);
        value = value < norm.low ? norm.low : value;
        out[p + c] = value > norm.high ? norm.high : value;
      }
  });
}

// dz: gradient of the sum before the activation, that is of the residual too.
inline void finish_backward(const float* dout, const float* out, const float* raw, const Norm& norm,
                            int64_t pixels, float* dz, Sums& sums, int threads) {
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
