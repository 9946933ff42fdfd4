// Basics of all kernels. The headers do not use Paddle, only pointers and sizes.
//
// Three ideas make the kernels fast:
// - Activations are stored as (N, H, W, C). A 1x1 convolution is then one matrix product over all
//   pixels, and every other loop runs over neighbouring channels, which form vectors.
// - A convolution stores its raw output. The next layer applies BatchNorm and ReLU while it loads
//   that output into a small buffer in the cache, forward and backward. So every layer crosses
//   memory once.
// - Work is cut into TASKS tasks, whatever the number of threads. Each task has its own sums, which
//   are added in order. So the result is bit-identical for any number of threads.
//
// Every channel count except those of the image and the logits is a multiple of 8, because
// `scaled_channels` rounds to such multiples.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "tasks.h"

namespace portraitnet {

// GCC and Clang vectors; the compiler maps their arithmetic to the processor's instructions.
typedef float Float8 __attribute__((vector_size(32)));
#ifdef __AVX512F__
typedef float Wide __attribute__((vector_size(64)));
constexpr int TILE_ROWS = 8;  // 8 x 3 accumulators in 32 registers
#else
typedef Float8 Wide;
constexpr int TILE_ROWS = 4;  // 4 x 3 accumulators in 16 registers
#endif

template <class V>
constexpr int LANES = sizeof(V) / sizeof(float);

// memcpy allows unaligned addresses and compiles to one instruction.
template <class V>
V load(const float* from) {
  V value;
  std::memcpy(&value, from, sizeof(V));
  return value;
}
template <class V>
void store(float* to, V value) {
  std::memcpy(to, &value, sizeof(V));
}

#ifdef __AVX512BF16__
// The upper half of a float: its sign, its exponent and 7 of its 23 mantissa bits.
struct BFloat16 {
  uint16_t bits;
};
// Two bfloat16 whose products with another pair are added to one float.
struct BFloat16Pair {
  uint32_t bits;
};

inline __m512 widen(__m256i bits) {
  return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16);
}
inline __m256 widen(__m128i bits) {
  return (__m256)_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16);
}
inline __m256i narrow(Wide value) { return (__m256i)_mm512_cvtneps_pbh(value); }
inline __m128i narrow(Float8 value) { return (__m128i)_mm256_cvtneps_pbh(value); }

template <class V>
V load(const BFloat16* from) {
  decltype(narrow(V{})) bits;
  std::memcpy(&bits, from, sizeof(bits));
  return widen(bits);
}
template <class V>
V load(const BFloat16Pair* from) {
  return load<V>(reinterpret_cast<const float*>(from));
}
template <class V>
void store(BFloat16* to, V value) {
  const auto bits = narrow(value);
  std::memcpy(to, &bits, sizeof(bits));
}
// Two vectors as one vector, and their values interleaved.
inline __m512i narrow(Wide first, Wide second) {
  return (__m512i)_mm512_cvtne2ps_pbh(second, first);
}
inline __m256i narrow(Float8 first, Float8 second) {
  return (__m256i)_mm256_cvtne2ps_pbh(second, first);
}
constexpr uint16_t TURNS16[] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
constexpr uint16_t TURNS8[] = {0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15};
inline void store_pairs(BFloat16Pair* to, __m512i both) {
  _mm512_storeu_si512(to, _mm512_permutexvar_epi16(_mm512_loadu_si512(TURNS16), both));
}
inline void store_pairs(BFloat16Pair* to, __m256i both) {
  const __m256i order = _mm256_loadu_si256((const __m256i*)TURNS8);
  _mm256_storeu_si256((__m256i*)to, _mm256_permutexvar_epi16(order, both));
}
template <class V>
void store_pairs(BFloat16Pair* to, V first, V second) {
  store_pairs(to, narrow(first, second));
}
#endif

// The operand type of a matrix product for factors stored as T, and the number of T in it.
template <class T>
struct Factor {
  typedef float type;
};
#ifdef __AVX512BF16__
template <>
struct Factor<BFloat16> {
  typedef BFloat16Pair type;
};
#endif
template <class T>
constexpr int PACK = sizeof(typename Factor<T>::type) / sizeof(T);

// value clipped to low..high; NaN stays NaN.
template <class V>
V clip(V value, float low, float high) {
  value = value < low ? V{} + low : value;
  return value > high ? V{} + high : value;
}

// `result` where low < value < high, else 0.
template <class V>
V where_between(V value, float low, float high, V result) {
  return (value > low) & (value < high) ? result : V{};
}

#ifdef __AVX512VL__  // Intrinsics, because the compiler needs several instructions for each.
inline Wide clip(Wide value, float low, float high) {
  return _mm512_min_ps(_mm512_set1_ps(high), _mm512_max_ps(_mm512_set1_ps(low), value));
}
inline Float8 clip(Float8 value, float low, float high) {
  return _mm256_min_ps(_mm256_set1_ps(high), _mm256_max_ps(_mm256_set1_ps(low), value));
}
inline Wide where_between(Wide value, float low, float high, Wide result) {
  const auto above = _mm512_cmp_ps_mask(value, _mm512_set1_ps(low), _CMP_GT_OQ);
  const auto inside = _mm512_mask_cmp_ps_mask(above, value, _mm512_set1_ps(high), _CMP_LT_OQ);
  return _mm512_maskz_mov_ps(inside, result);
}
inline Float8 where_between(Float8 value, float low, float high, Float8 result) {
  const auto above = _mm256_cmp_ps_mask(value, _mm256_set1_ps(low), _CMP_GT_OQ);
  const auto inside = _mm256_mask_cmp_ps_mask(above, value, _mm256_set1_ps(high), _CMP_LT_OQ);
  return _mm256_maskz_mov_ps(inside, result);
}
#endif

// Calls body(V{}, c) for the vectors V that cover channels c, c + 1, ... Values of a channel stay
// in registers while the body loops over pixels.
template <class Body>
__attribute__((always_inline)) inline void each_vector(int channels, Body body) {
  int c = 0;
  for (; c + LANES<Wide> <= channels; c += LANES<Wide>) body(Wide{}, c);
  for (; c < channels; c += LANES<Float8>) body(Float8{}, c);
}

// (rows, columns) -> (columns, rows).
inline std::vector<float> transpose(const float* matrix, int rows, int columns) {
  std::vector<float> out(size_t(rows) * columns);
  for (int r = 0; r < rows; ++r)
    for (int c = 0; c < columns; ++c) out[size_t(c) * rows + r] = matrix[size_t(r) * columns + c];
  return out;
}

struct Range {
  int64_t begin, end;
  int64_t size() const { return end - begin; }
};

inline Range task_range(int64_t total, int task) {
  return {total * task / TASKS, total * (task + 1) / TASKS};
}

// The next address at which a cache line starts, because a vector across two lines costs twice.
inline float* aligned(float* address) {
  return reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(address) + 63) / 64 * 64);
}

// A buffer of the calling thread, as large as the largest that was asked for, kept between calls so
// that its pages stay mapped. Who holds two at a time gives them two numbers.
template <int NUMBER = 0>
float* scratch(size_t size) {
  static thread_local std::vector<float> buffer;
  if (buffer.size() < size + 16) buffer = std::vector<float>(size + 16);
  return aligned(buffer.data());
}

// Pixels in a chunk, so that the loaded, multiplied and stored values of a chunk fit the L2 cache.
inline int64_t chunk_pixels(int floats_per_pixel) {
  return std::min<int64_t>(256, std::max<int64_t>(32, 96 * 1024 / floats_per_pixel / 8 * 8));
}

// The output of a product and the start values of its sums. `finish` receives a tile from
// registers: sums[r] are columns j, j + 1, ... of row i + r.
struct Matrix {
  float* c;
  int64_t pitch;
  bool add;  // whether the product is added to the stored values
  template <class V>
  V begin(int64_t i, int j) const {
    return add ? load<V>(c + i * pitch + j) : V{};
  }
  template <class V, int ROWS>
  void finish(const V (&sums)[ROWS], int64_t i, int j) const {
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) store(c + (i + r) * pitch + j, sums[r]);
  }
};

// Gradients of a weight: one buffer a task, added in order. `task(t)` is task t's buffer, not
// initialised.
struct Partials {
  size_t size;
  float* values;
  explicit Partials(size_t size) : size(size), values(scratch<1>(TASKS * size)) {}
  float* task(int task) { return values + task * size; }
  float* zeroed_task(int t) {
    std::memset(task(t), 0, size * sizeof(float));
    return task(t);
  }
  void total(int threads, float* out) {
    parallel(threads, [&](int piece) {
      const Range range = task_range(size, piece);
      std::copy(values + range.begin, values + range.end, out + range.begin);
      for (int task = 1; task < TASKS; ++task)
        for (int64_t i = range.begin; i < range.end; ++i) out[i] += values[task * size + i];
    });
  }
};

}  // namespace portraitnet
