// What all kernels share. No Paddle in these headers: plain pointers and sizes.
//
// Three ideas make them fast:
// - Activations are stored (N, H, W, C). A 1x1 convolution is then one matrix product over all
//   pixels, and every other loop runs over neighbouring channels, which compiles to vector
//   instructions.
// - What a convolution stores is its raw output. BatchNorm and ReLU are applied when the next layer
//   loads it into a small buffer that stays in the cache, forward and backward, so that every layer
//   crosses memory once.
// - Work is cut into TASKS pieces, whatever the number of threads. Each piece sums on its own, and
//   the sums are added in order, so one thread and many give the same result to the last bit.
//
// Every channel count but the photo's and the logits' is a multiple of 8: `scaled_channels` sees to
// it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
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

inline Range task_range(int64_t total, int task) {
  return {total * task / TASKS, total * (task + 1) / TASKS};
}

// A float buffer of the calling thread, kept between calls so that its pages stay mapped.
inline float* scratch(size_t size) {
  static thread_local std::vector<float> buffer;
  if (buffer.size() < size) buffer.resize(size);
  return buffer.data();
}

// Pixels a chunk: what is loaded, multiplied and stored together should stay in the L2 cache.
inline int64_t chunk_pixels(int floats_per_pixel) {
  return std::min<int64_t>(256, std::max<int64_t>(32, 96 * 1024 / floats_per_pixel / 8 * 8));
}

// Gradients of a weight: one buffer a task, added in order.
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

}  // namespace portraitnet
