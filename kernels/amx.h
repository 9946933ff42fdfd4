// Products of bfloat16 pairs on processors with AMX. Its registers are tiles of 16 rows of 64
// bytes. One instruction multiplies 16 x 16 pairs by 16 x 16 pairs and adds the result to 16 x 16
// floats.
#pragma once

#include "basics.h"

#ifdef __AMX_BF16__
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>

namespace portraitnet {

constexpr int SIDE = 16;  // side of a tile
// Largest k of a left factor that is transposed on the stack, 32 rows at a time.
constexpr int LARGEST_TRANSPOSED = 256;

// Whether this process may use tiles. One request to the system holds for all threads.
// PORTRAITNET_AMX=0 lets tests run the code without tiles.
inline bool may_use_tiles() {
  static const bool may = [] {
    constexpr int REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;
    const char* setting = std::getenv("PORTRAITNET_AMX");
    return !(setting && *setting == '0') &&
           syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
  }();
  return may;
}

// Completes stores to memory that tile instructions read, because GCC does not know these reads.
inline void finish_stores(const void* memory) { asm volatile("" : : "r"(memory) : "memory"); }

// The shapes of this thread's tiles: 0 to 3 are 2 x 2 tiles of sums, 4 and 5 the left factor's
// rows, 6 and 7 the right factor's columns. The destructor releases the tiles, because other code
// may use tiles too.
struct alignas(64) Tiles {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes[16] = {};
  uint8_t rows[16] = {};
  int height = 0, width[2] = {}, depth = 0;

  void configure(int new_height, int left, int right, int new_depth) {
    if (new_height == height && left == width[0] && right == width[1] && new_depth == depth) return;
    height = new_height, width[0] = left, width[1] = right, depth = new_depth;
    for (int t = 0; t < 2; ++t) {
      shape(t, height, width[t]), shape(2 + t, height, width[t]);
      shape(4 + t, height, depth), shape(6 + t, depth, width[t]);
    }
    finish_stores(this);
    _tile_loadconfig(this);
  }
  ~Tiles() { _tile_release(); }

 private:
  void shape(int tile, int height, int width) {
    rows[tile] = width ? height : 0, bytes[tile] = 4 * width;
  }
};

template <class V, class Out>
void finish_rows(const float* sums, int64_t pitch, int rows, const Out& out, int64_t i, int j) {
  int r = 0;
  const auto finish = [&](auto count) {
    constexpr int ROWS = decltype(count)::value;
    for (; r + ROWS <= rows; r += ROWS) {
      V lines[ROWS];
#pragma GCC unroll 8
      for (int t = 0; t < ROWS; ++t) lines[t] = load<V>(sums + (r + t) * pitch);
      out.finish(lines, i + r, j);
    }
  };
  finish(std::integral_constant<int, 8>());
  finish(std::integral_constant<int, 1>());
}

// ROWS x COLUMNS tiles of `out` at row i, column j. `a_step` leads to the left factor's next tile.
template <int ROWS, int COLUMNS, class Out>
void multiply_tiles(const Tiles& tiles, int k, const BFloat16Pair* a, int64_t a_row, int64_t a_step,
                    const BFloat16Pair* b, int64_t b_row, const Out& out, int64_t i, int j) {
  alignas(64) float memory[4 * SIDE * SIDE];
  // A Matrix holds the sums itself; other outputs read them from `memory`.
  constexpr bool direct = std::is_same<Out, Matrix>::value;
  float* sums = memory;
  int64_t pitch = 2 * SIDE;
  bool add = false;
  if constexpr (direct) sums = out.c + i * out.pitch + j, pitch = out.pitch, add = out.add;
  float* lower = sums + SIDE * pitch;
  finish_stores(a);
  if (add) {
    _tile_loadd(0, sums, pitch * 4);
    if (COLUMNS == 2) _tile_loadd(1, sums + SIDE, pitch * 4);
    if (ROWS == 2) _tile_loadd(2, lower, pitch * 4);
    if (ROWS * COLUMNS == 4) _tile_loadd(3, lower + SIDE, pitch * 4);
  } else {
    _tile_zero(0);
    if (COLUMNS == 2) _tile_zero(1);
    if (ROWS == 2) _tile_zero(2);
    if (ROWS * COLUMNS == 4) _tile_zero(3);
  }
  for (int p = 0; p < k; p += tiles.depth, a += a_step, b += tiles.depth * b_row) {
    _tile_loadd(6, b, b_row * 4);
    _tile_loadd(4, a, a_row * 4);
    _tile_dpbf16ps(0, 4, 6);
    if (COLUMNS == 2) {
      _tile_loadd(7, b + SIDE, b_row * 4);
      _tile_dpbf16ps(1, 4, 7);
    }
    if (ROWS == 2) {
      _tile_loadd(5, a + SIDE * a_row, a_row * 4);
      _tile_dpbf16ps(2, 5, 6);
      if (COLUMNS == 2) _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, sums, pitch * 4);
  if (COLUMNS == 2) _tile_stored(1, sums + SIDE, pitch * 4);
  if (ROWS == 2) _tile_stored(2, lower, pitch * 4);
  if (ROWS * COLUMNS == 4) _tile_stored(3, lower + SIDE, pitch * 4);
  if constexpr (!direct)
    for (int c = 0; c < COLUMNS; ++c) {
      const int rows = ROWS == 2 ? 2 * SIDE : tiles.height;
      if (tiles.width[c] == SIDE)
        finish_rows<Wide>(sums + SIDE * c, pitch, rows, out, i, j + SIDE * c);
      else
        finish_rows<Float8>(sums + SIDE * c, pitch, rows, out, i, j + SIDE * c);
    }
}

// (depth, width) -> (width, depth) with a row pitch of `SIDE`; width is 8 or 16.
inline void transpose_pairs(const BFloat16Pair* from, int64_t pitch, int depth, int width,
                            BFloat16Pair* to) {
  for (int c = 0; c < width; c += 4) {
    __m512i lines[4];  // lanes of four: rows t, t + 4, t + 8, t + 12
#pragma GCC unroll 4
    for (int t = 0; t < 4; ++t) {
      const auto row = [&](int r) {
        return _mm_loadu_si128((const __m128i*)(from + std::min(r, depth - 1) * pitch + c));
      };
      lines[t] = _mm512_castsi128_si512(row(t));
      lines[t] = _mm512_inserti32x4(lines[t], row(t + 4), 1);
      lines[t] = _mm512_inserti32x4(lines[t], row(t + 8), 2);
      lines[t] = _mm512_inserti32x4(lines[t], row(t + 12), 3);
    }
    const __m512i low01 = _mm512_unpacklo_epi32(lines[0], lines[1]);
    const __m512i low23 = _mm512_unpacklo_epi32(lines[2], lines[3]);
    const __m512i high01 = _mm512_unpackhi_epi32(lines[0], lines[1]);
    const __m512i high23 = _mm512_unpackhi_epi32(lines[2], lines[3]);
    _mm512_storeu_si512(to + (c + 0) * SIDE, _mm512_unpacklo_epi64(low01, low23));
    _mm512_storeu_si512(to + (c + 1) * SIDE, _mm512_unpackhi_epi64(low01, low23));
    _mm512_storeu_si512(to + (c + 2) * SIDE, _mm512_unpacklo_epi64(high01, high23));
    _mm512_storeu_si512(to + (c + 3) * SIDE, _mm512_unpackhi_epi64(high01, high23));
  }
}

// The largest divisor of k that is at most SIDE.
inline int tile_depth(int k) {
  int steps = (k + SIDE - 1) / SIDE;
  while (k % steps) ++steps;
  return k / steps;
}

inline bool cuts(int k) { return k <= SIDE || tile_depth(k) >= SIDE / 2; }

// `gemm` for a k that `cuts` accepts and a left factor whose rows (a_col == 1) or columns
// (a_row == 1) are contiguous.
template <class Out>
void tile_gemm(int64_t m, int n, int k, const BFloat16Pair* a, int64_t a_row, int64_t a_col,
               const BFloat16Pair* b, int64_t b_row, const Out& out) {
  constexpr int PANEL = 2 * SIDE;
  const int depth = tile_depth(k), steps = k / depth;
  const int left = std::min(n, SIDE), right = n % SIDE ? 8 : SIDE;
  alignas(64) BFloat16Pair packed[LARGEST_TRANSPOSED / (SIDE / 2) * SIDE * PANEL];
  Tiles tiles;
  for (int64_t i = 0; i < m;) {
    const int height = int(std::min<int64_t>(SIDE, m - i));
    const bool two_rows = i + PANEL <= m;
    const BFloat16Pair* rows = a + i * a_row;
    int64_t row = a_row, step = depth;
    if (a_col != 1) {
      for (int s = 0; s < steps; ++s)
        for (int r = 0; r < (two_rows ? PANEL : height); r += SIDE)
          transpose_pairs(a + s * depth * a_col + i + r, a_col, depth, height,
                          packed + (s * PANEL + r) * SIDE);
      rows = packed, row = SIDE, step = PANEL * SIDE;
    }
    tiles.configure(height, left, right, depth);
    for (int j = 0; j < n;) {
      // A last panel of 8 columns is joined to the 16 columns before it.
      const bool two = n % SIDE ? j + SIDE + 8 == n : j + PANEL <= n;
      const auto multiply = [&](auto r, auto c) {
        multiply_tiles<decltype(r)::value, decltype(c)::value>(tiles, k, rows, row, step, b + j,
                                                               b_row, out, i, j);
      };
      constexpr std::integral_constant<int, 1> ONE;
      constexpr std::integral_constant<int, 2> TWO;
      if (two_rows)
        two ? multiply(TWO, TWO) : multiply(TWO, ONE);
      else
        two ? multiply(ONE, TWO) : multiply(ONE, ONE);
      j += two ? PANEL : SIDE;
    }
    i += two_rows ? PANEL : SIDE;
  }
}

}  // namespace portraitnet
#endif
