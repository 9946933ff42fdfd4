// The matrix product of all dense convolutions.
#pragma once

#include "amx.h"
#include "basics.h"

namespace portraitnet {

template <class V>
V multiply_add(V sum, float a, V line) {
  return sum + a * line;
}

#ifdef __AVX512BF16__
inline Wide multiply_add(Wide sum, BFloat16Pair a, Wide line) {
  return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32(a.bits), (__m512bh)line);
}
inline Float8 multiply_add(Float8 sum, BFloat16Pair a, Float8 line) {
  return _mm256_dpbf16_ps(sum, (__m256bh)_mm256_set1_epi32(a.bits), (__m256bh)line);
}
#endif

// Keeps the compiler from reading a vector from memory again at each of its uses: with 16 registers
// it does, and the loads take longer than the products.
template <class V>
void keep_in_register(V& vector) {
#ifdef __x86_64__
  asm("" : "+v"(vector));
#endif
}

// `out` (ROWS x VECTORS*lanes, at row i, column j) receives a (ROWS x k) times b (k x
// VECTORS*lanes), summed in registers.
template <int ROWS, int VECTORS, class V, class E, class Out>
void tile(int k, const E* a, int64_t a_row, int64_t a_col, const E* b, int64_t b_row,
          const Out& out, int64_t i, int j) {
  V sum[VECTORS][ROWS];
#pragma GCC unroll 3
  for (int v = 0; v < VECTORS; ++v)
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) sum[v][r] = out.template begin<V>(i + r, j + v * LANES<V>);
  for (int p = 0; p < k; ++p) {
    V line[VECTORS];
#pragma GCC unroll 3
    for (int v = 0; v < VECTORS; ++v) {
      line[v] = load<V>(b + p * b_row + v * LANES<V>);
      keep_in_register(line[v]);
    }
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 3
      for (int v = 0; v < VECTORS; ++v)
        sum[v][r] = multiply_add(sum[v][r], a[r * a_row + p * a_col], line[v]);
  }
#pragma GCC unroll 3
  for (int v = 0; v < VECTORS; ++v) out.finish(sum[v], i, j + v * LANES<V>);
}

// The rows of one panel of VECTORS*lanes columns.
template <int VECTORS, class V, class E, class Out>
void panel(int64_t m, int k, const E* a, int64_t a_row, int64_t a_col, const E* b, int64_t b_row,
           const Out& out, int j) {
  constexpr int WIDTH = VECTORS * LANES<V>;
  // The panel is read once for every few rows. Rows far apart push each other out of the cache:
  // they are copied next to each other.
  if (m > 2 * TILE_ROWS && b_row != WIDTH) {
    E* packed = reinterpret_cast<E*>(scratch<3>(size_t(k) * WIDTH));
    for (int p = 0; p < k; ++p) std::memcpy(packed + p * WIDTH, b + p * b_row, WIDTH * sizeof(E));
    b = packed;
    b_row = WIDTH;
  }
  // A sum waits for its last product, so one vector needs more rows to keep the processor busy.
  constexpr int ROWS = VECTORS == 1 ? 8 : TILE_ROWS;
  int64_t i = 0;
  for (; i + ROWS <= m; i += ROWS)
    tile<ROWS, VECTORS, V>(k, a + i * a_row, a_row, a_col, b, b_row, out, i, j);
  for (; i + 4 <= m; i += 4)
    tile<4, VECTORS, V>(k, a + i * a_row, a_row, a_col, b, b_row, out, i, j);
  for (; i + 2 <= m; i += 2)
    tile<2, VECTORS, V>(k, a + i * a_row, a_row, a_col, b, b_row, out, i, j);
  if (i < m) tile<1, VECTORS, V>(k, a + i * a_row, a_row, a_col, b, b_row, out, i, j);
}

#ifdef __AMX_BF16__
// The product by tiles; false if tiles do not pay off or cannot divide k. A product that is added
// to a Matrix may be computed in parts.
template <class Out>
bool gemm_by_tiles(int64_t m, int n, int k, const BFloat16Pair* a, int64_t a_row, int64_t a_col,
                   const BFloat16Pair* b, int64_t b_row, Out out) {
  constexpr bool parts = std::is_same<Out, Matrix>::value;
  if (!may_use_tiles() || k < 4 || m < 8) return false;
  if (a_col != 1 && (!parts || a_row != 1 || m % 4) || !parts && !cuts(k)) return false;
  for (int p = 0, part; p < k; p += part) {
    part = k - p;
    if (a_col != 1) part = std::min(part, LARGEST_TRANSPOSED);
    if (!cuts(part)) part = part / SIDE * SIDE;
    tile_gemm(m, n, part, a + p * a_col, a_row, a_col, b + p * b_row, b_row, out);
    if constexpr (parts) out.add = true;
  }
  return true;
}
#endif

// `out` (m x n) receives a (m x k) times b (k x n), of floats or of pairs; a pair makes two steps
// of k in one. n is a multiple of 8. The strides of a are free, so that a transposed matrix and the
// overlapping windows of a convolution are read without a copy. Rows of b are contiguous.
template <class E, class Out>
void gemm(int64_t m, int n, int k, const E* a, int64_t a_row, int64_t a_col, const E* b,
          int64_t b_row, const Out& out) {
  constexpr int LANE = LANES<Wide>;
#ifdef __AMX_BF16__
  if constexpr (std::is_same<E, BFloat16Pair>::value)
    if (gemm_by_tiles(m, n, k, a, a_row, a_col, b, b_row, out)) return;
#endif
  int j = 0;
  for (; j + 3 * LANE <= n && n - j != 4 * LANE; j += 3 * LANE)  // 4 vectors are twice 2
    panel<3, Wide>(m, k, a, a_row, a_col, b + j, b_row, out, j);
  for (; j + 2 * LANE <= n; j += 2 * LANE)
    panel<2, Wide>(m, k, a, a_row, a_col, b + j, b_row, out, j);
  for (; j + LANE <= n; j += LANE) panel<1, Wide>(m, k, a, a_row, a_col, b + j, b_row, out, j);
  for (; j < n; j += 8) panel<1, Float8>(m, k, a, a_row, a_col, b + j, b_row, out, j);
}

// A matrix (k, n) as the right factor of a product.
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

}  // namespace portraitnet
