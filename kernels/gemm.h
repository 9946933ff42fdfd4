// The matrix product that every dense convolution ends in.
#pragma once

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

// c (ROWS x VECTORS*lanes) = or += a (ROWS x k) times b (k x VECTORS*lanes); c stays in registers.
template <int ROWS, int VECTORS, class V, class E>
void tile(int k, const E* a, int64_t a_row, int64_t a_col, const E* b, int64_t b_row,
          float* c, int64_t c_row, bool add) {
  V sum[ROWS][VECTORS] = {};
  if (add) {
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 3
      for (int v = 0; v < VECTORS; ++v) sum[r][v] = load<V>(c + r * c_row + v * LANES<V>);
  }
  for (int p = 0; p < k; ++p) {
    V line[VECTORS];
#pragma GCC unroll 3
    for (int v = 0; v < VECTORS; ++v) line[v] = load<V>(b + p * b_row + v * LANES<V>);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 3
      for (int v = 0; v < VECTORS; ++v)
        sum[r][v] = multiply_add(sum[r][v], a[r * a_row + p * a_col], line[v]);
  }
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 3
    for (int v = 0; v < VECTORS; ++v) store(c + r * c_row + v * LANES<V>, sum[r][v]);
}

// The rows of one panel of VECTORS*lanes columns.
template <int VECTORS, class V, class E>
void panel(int64_t m, int k, const E* a, int64_t a_row, int64_t a_col, const E* b, int64_t b_row,
           float* c, int64_t c_row, bool add) {
  int64_t i = 0;
  for (; i + TILE_ROWS <= m; i += TILE_ROWS)
    tile<TILE_ROWS, VECTORS, V>(k, a + i * a_row, a_row, a_col, b, b_row, c + i * c_row, c_row,
                                add);
  for (; i + 4 <= m; i += 4)
    tile<4, VECTORS, V>(k, a + i * a_row, a_row, a_col, b, b_row, c + i * c_row, c_row, add);
  for (; i + 2 <= m; i += 2)
    tile<2, VECTORS, V>(k, a + i * a_row, a_row, a_col, b, b_row, c + i * c_row, c_row, add);
  if (i < m)
    tile<1, VECTORS, V>(k, a + i * a_row, a_row, a_col, b, b_row, c + i * c_row, c_row, add);
}

// c (m x n) = or += a (m x k) b (k x n), of floats or of pairs, which make two steps of k in one.
// n is a multiple of 8. a's strides are free, so that a
// transposed matrix and the overlapping windows of a convolution are read where they stand; rows of
// b and c are contiguous.
template <class E>
void gemm(int64_t m, int n, int k, const E* a, int64_t a_row, int64_t a_col, const E* b,
          int64_t b_row, float* c, int64_t c_row, bool add) {
  constexpr int LANE = LANES<Wide>;
  int j = 0;
  for (; j + 3 * LANE <= n; j += 3 * LANE)
    panel<3, Wide>(m, k, a, a_row, a_col, b + j, b_row, c + j, c_row, add);
  for (; j + 2 * LANE <= n; j += 2 * LANE)
    panel<2, Wide>(m, k, a, a_row, a_col, b + j, b_row, c + j, c_row, add);
  for (; j + LANE <= n; j += LANE)
    panel<1, Wide>(m, k, a, a_row, a_col, b + j, b_row, c + j, c_row, add);
  for (; j < n; j += 8) panel<1, Float8>(m, k, a, a_row, a_col, b + j, b_row, c + j, c_row, add);
}

}  // namespace portraitnet
