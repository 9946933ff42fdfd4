// The loops of pixels.js, effects.js and smoothing.js that every frame of a camera passes through, for
// WebAssembly with SIMD: compile.sh compiles them.
//
// Pictures are rows from the top with interleaved channels; pixels.js owns the memory and explains
// the arguments. Nothing is checked here.

#include <wasm_simd128.h>

#define EXPORT(name) __attribute__((export_name(#name)))
#define MOMENTS 13  // r g b p, rp gp bp, rr rg rb gg gb bb

typedef float Pixel __attribute__((vector_size(16)));  // red, green, blue and a fourth
typedef float Four __attribute__((vector_size(16), aligned(4)));
typedef unsigned char Bytes __attribute__((vector_size(4)));

// The old pixels that a new one covers, and the weights of the first, the last and the others.
typedef struct {
  int first, last;
  float begin, end, middle;
} Span;

static float weightOf(const Span *span, int i) {
  return i == span->first ? span->begin : i == span->last ? span->end : span->middle;
}

// The two old pixels around a new one's centre, and the weight of the second.
typedef struct {
  int first, second;
  float along;
} Place;

static Pixel pixel(const unsigned char *bytes) {
  return __builtin_convertvector(*(const Bytes *)bytes, Pixel);
}

static int reflected(int i, int length) {
  while (i < 0 || i >= length) i = i < 0 ? -1 - i : 2 * length - 1 - i;
  return i;
}

static float smaller(float a, float b) { return a < b ? a : b; }
static float larger(float a, float b) { return a > b ? a : b; }

// Mean in a square window of side 2 * radius + 1, reflected at the border. `passed` has room for the
// picture, `sums` for a row.
EXPORT(box_mean)
void box_mean(const float *from, int width, int height, int channels, int radius, float *passed,
              float *sums, float *to) {
  int length = width * channels;
  float weight = 1.0f / (2 * radius + 1);
  for (int i = 0; i < length; i++) sums[i] = 0;
  for (int k = -radius; k <= radius; k++) {
    const float *row = from + reflected(k, height) * length;
    for (int i = 0; i < length; i++) sums[i] += row[i];
  }
  for (int y = 0; y < height; y++) {
    const float *next = from + reflected(y + radius + 1, height) * length;
    const float *last = from + reflected(y - radius, height) * length;
    float *result = passed + y * length;
    for (int i = 0; i < length; i++) {
      result[i] = sums[i] * weight;
      sums[i] += next[i] - last[i];
    }
  }
  for (int y = 0; y < height; y++) {
    const float *row = passed + y * length;
    float *result = to + y * length;
    for (int c = 0; c < channels; c++) sums[c] = 0;
    for (int k = -radius; k <= radius; k++) {
      const float *pixel = row + reflected(k, width) * channels;
      for (int c = 0; c < channels; c++) sums[c] += pixel[c];
    }
    for (int x = 0; x < width; x++) {
      const float *next = row + reflected(x + radius + 1, width) * channels;
      const float *last = row + reflected(x - radius, width) * channels;
      for (int c = 0; c < channels; c++) {
        result[x * channels + c] = sums[c] * weight;
        sums[c] += next[c] - last[c];
      }
    }
  }
}

// Slopes of red, green and blue, and the offset, as in postprocess.color_fit. `guide` is RGBA in
// 0..255; `moments`, `passed` and `means` have room for MOMENTS channels, `fit` gets four.
EXPORT(color_fit)
void color_fit(const float *guide, const float *odds, int width, int height, int radius,
               float epsilon, float *moments, float *passed, float *means, float *sums, float *fit) {
  int size = width * height;
  for (int i = 0; i < size; i++) {
    float r = guide[4 * i] / 255, g = guide[4 * i + 1] / 255, b = guide[4 * i + 2] / 255;
    float p = odds[i];
    float values[MOMENTS] = {r, g, b, p, r * p, g * p, b * p, r * r, r * g, r * b, g * g, g * b, b * b};
    for (int k = 0; k < MOMENTS; k++) moments[MOMENTS * i + k] = values[k];
  }
  box_mean(moments, width, height, MOMENTS, radius, passed, sums, means);
  for (int i = 0; i < size; i++) {
    const float *m = means + MOMENTS * i;
    float r = m[0], g = m[1], b = m[2], p = m[3];
    float x = m[4] - r * p, y = m[5] - g * p, z = m[6] - b * p;
    float rr = m[7] - r * r + epsilon, rg = m[8] - r * g, rb = m[9] - r * b;
    float gg = m[10] - g * g + epsilon, gb = m[11] - g * b, bb = m[12] - b * b + epsilon;
    // The symmetric 3x3 system is solved by its adjugate.
    float ra = gg * bb - gb * gb, ga = rb * gb - rg * bb, ba = rg * gb - rb * gg;
    float mixed = rg * rb - rr * gb;
    float determinant = rr * ra + rg * ga + rb * ba;
    float red = (ra * x + ga * y + ba * z) / determinant;
    float green = (ga * x + (rr * bb - rb * rb) * y + mixed * z) / determinant;
    float blue = (ba * x + mixed * y + (rr * gg - rg * rg) * z) / determinant;
    float *slopes = moments + 4 * i;
    slopes[0] = red;
    slopes[1] = green;
    slopes[2] = blue;
    slopes[3] = p - red * r - green * g - blue * b;
  }
  box_mean(moments, width, height, 4, radius, passed, sums, fit);
}

// Between the four pixels around a point: two of the row above, two of the row below.
static Pixel between(Pixel a, Pixel b, Pixel c, Pixel d, float along, float down) {
  Pixel upper = a + along * (b - a), lower = c + along * (d - c);
  return upper + down * (lower - upper);
}

// The fit applied to the colours of `image`, opaque RGBA bytes of `stride` pixels a row, shrunk to
// width x height. `columns` and `rows` are places in the small planes, whose rows have `length`
// pixels; `imageColumns` and `imageRows` in the image. `row` has room for eight values a column of the
// small planes and one column more.
EXPORT(apply_fit)
void apply_fit(const float *fit, const float *low, const float *high, const float *odds, int length,
               const Place *columns, const Place *rows, const unsigned char *image, int stride,
               const Place *imageColumns, const Place *imageRows, int width, int height, float still,
               float *row, float *refined, float *coarse) {
  // Interpolated between two rows; the last column twice, so that each one has a right neighbour.
  float *lows = row + 4 * (length + 1), *highs = lows + length + 1, *middle = highs + length + 1;
  float *flat = middle + length + 1;
  for (int y = 0; y < height; y++) {
    int above = rows[y].first * length, below = rows[y].second * length;
    float down = rows[y].along;
    for (int i = 0; i < length; i++) {
      lows[i] = low[above + i] + down * (low[below + i] - low[above + i]);
      highs[i] = high[above + i] + down * (high[below + i] - high[above + i]);
      middle[i] = odds[above + i] + down * (odds[below + i] - odds[above + i]);
      flat[i] = highs[i] - lows[i] < still;
    }
    for (int i = 0; i < 4 * length; i++) {
      row[i] = fit[4 * above + i] + down * (fit[4 * below + i] - fit[4 * above + i]);
    }
    for (int i = 0; i < 4; i++) row[4 * length + i] = row[4 * length - 4 + i];
    lows[length] = lows[length - 1];
    highs[length] = highs[length - 1];
    middle[length] = middle[length - 1];
    flat[length] = flat[length - 1];
    const unsigned char *upper = image + 4 * stride * imageRows[y].first;
    const unsigned char *lower = image + 4 * stride * imageRows[y].second;
    float *result = refined + y * width, *plain = coarse + y * width;
    for (int x = 0; x < width; x++) {
      int i = columns[x].first;
      plain[x] = result[x] = middle[i] + columns[x].along * (middle[i + 1] - middle[i]);
    }
    for (int x = 0; x < width;) {
      int i = columns[x].first;
      if (flat[i] && flat[i + 1]) {
        while (x < width && columns[x].first == i) x++;
        continue;
      }
      for (; x < width && columns[x].first == i; x++) {
        float along = columns[x].along;
        Pixel colors;
        if (stride == width) {
          colors = pixel(upper + 4 * x);
        } else {
          int a = 4 * imageColumns[x].first, b = 4 * imageColumns[x].second;
          float u = imageColumns[x].along, v = imageRows[y].along;
          colors = between(pixel(upper + a), pixel(upper + b), pixel(lower + a), pixel(lower + b), u, v);
        }
        const Pixel *left = (const Pixel *)row + i;
        Pixel terms = (left[0] + along * (left[1] - left[0])) * colors;
        float value = (terms[0] + terms[1] + terms[2] + terms[3]) / 255;
        value = larger(value, lows[i] + along * (lows[i + 1] - lows[i]));
        result[x] = smaller(value, highs[i] + along * (highs[i + 1] - highs[i]));
      }
    }
  }
}

#define CHUNK 32  // pixels that are looked at together

// The least or the greatest value of a disc around each pixel of the chunks that are marked by at least
// `level`. Both pictures have a margin of `radius` pixels; `reach` is the disc's half width in each row.
static inline __attribute__((always_inline)) void extreme(
    const float *from, int width, int height, int radius, const int *reach, const unsigned char *marks,
    int level, int least, float *to) {
  int stride = width + 2 * radius, chunks = (width + CHUNK - 1) / CHUNK;
  for (int y = 0; y < height; y++) {
    for (int k = 0; k < chunks; k++) {
      if (marks[y * chunks + k] < level) continue;
      int at = (y + radius) * stride + radius;
      int x = at + k * CHUNK, end = at + ((k + 1) * CHUNK < width ? (k + 1) * CHUNK : width);
      for (; x + 4 <= end; x += 4) {
        v128_t best = wasm_v128_load(from + x);
        for (int v = -radius; v <= radius; v++) {
          for (int u = -reach[v + radius]; u <= reach[v + radius]; u++) {
            v128_t other = wasm_v128_load(from + x + v * stride + u);
            best = least ? wasm_f32x4_pmin(best, other) : wasm_f32x4_pmax(best, other);
          }
        }
        wasm_v128_store(to + x, best);
      }
      for (; x < end; x++) {
        float best = from[x];
        for (int v = -radius; v <= radius; v++) {
          for (int u = -reach[v + radius]; u <= reach[v + radius]; u++) {
            float other = from[x + v * stride + u];
            best = least ? smaller(best, other) : larger(best, other);
          }
        }
        to[x] = best;
      }
    }
  }
}

// Thin spikes taken out of the mask, in place: postprocess.without_spikes. `padded` and `eroded` have
// room for the picture with a margin of `radius`, `marks` for a byte a chunk.
EXPORT(without_spikes)
void without_spikes(float *refined, const float *coarse, int width, int height, int radius,
                    const int *reach, float threshold, float *padded, float *eroded,
                    unsigned char *marks) {
  int stride = width + 2 * radius, size = stride * (height + 2 * radius);
  int chunks = (width + CHUNK - 1) / CHUNK;
  for (int i = 0; i < size; i++) padded[i] = 2, eroded[i] = -2;  // beyond every probability
  for (int i = 0; i < height * chunks; i++) marks[i] = 0;
  for (int y = 0; y < height; y++) {
    __builtin_memcpy(padded + (y + radius) * stride + radius, refined + y * width, 4 * width);
    // 2: the filter has raised a pixel in it; 1: one near it.
    for (int k = 0; k < chunks; k++) {
      int raised = 0, end = (k + 1) * CHUNK < width ? (k + 1) * CHUNK : width;
      for (int i = y * width + k * CHUNK; i < y * width + end; i++) {
        raised |= refined[i] > larger(coarse[i], threshold);
      }
      if (!raised) continue;
      for (int v = y - radius; v <= y + radius; v++) {
        for (int u = k - 1; u <= k + 1; u++) {
          if (v >= 0 && v < height && u >= 0 && u < chunks) marks[v * chunks + u] |= 1;
        }
      }
      marks[y * chunks + k] = 2;
    }
  }
  extreme(padded, width, height, radius, reach, marks, 1, 1, eroded);
  extreme(eroded, width, height, radius, reach, marks, 2, 0, padded);
  for (int y = 0; y < height; y++) {
    const float *opened = padded + (y + radius) * stride + radius;
    for (int k = 0; k < chunks; k++) {
      if (marks[y * chunks + k] < 2) continue;
      int end = (k + 1) * CHUNK < width ? (k + 1) * CHUNK : width;
      for (int x = k * CHUNK, i = y * width + x; x < end; x++, i++) {
        refined[i] = smaller(refined[i], larger(larger(opened[x], coarse[i]), threshold));
      }
    }
  }
}

// A picture of `length` values a row and `step` values a pixel shrunk by area averaging: first along
// columns, into `tall`, which has room for an old row, then along rows. RGBA in bytes, or floats.
EXPORT(average)
void average(const unsigned char *bytes, const float *floats, int length, int step, int width,
             int height, const Span *columns, const Span *rows, float *tall, float *to) {
  for (int y = 0; y < height; y++) {
    for (int i = 0; i < length; i++) tall[i] = 0;
    for (int from = rows[y].first; from <= rows[y].last; from++) {
      float weight = weightOf(rows + y, from);
      int start = from * length;
      if (bytes) {
        for (int i = 0; i < length; i += 4) *(Pixel *)(tall + i) += weight * pixel(bytes + start + i);
      } else {
        for (int i = 0; i < length; i++) tall[i] += weight * floats[start + i];
      }
    }
    for (int x = 0; x < width; x++, to += step) {
      const Span *span = columns + x;
      if (step == 4) {
        const Pixel *pixels = (const Pixel *)tall;
        Pixel sum = span->begin * pixels[span->first] + span->end * pixels[span->last];
        for (int i = span->first + 1; i < span->last; i++) sum += span->middle * pixels[i];
        *(Pixel *)to = sum;
      } else {
        float sum = span->begin * tall[span->first] + span->end * tall[span->last];
        for (int i = span->first + 1; i < span->last; i++) sum += span->middle * tall[i];
        *to = sum;
      }
    }
  }
}

// Rounded to whole numbers, halves to the even one.
EXPORT(round_all)
void round_all(float *values, int length) {
  for (int i = 0; i < length; i++) values[i] = __builtin_nearbyintf(values[i]);
}

// The network's input, one plane a colour. `order` says which channel each plane shows.
EXPORT(to_batch)
void to_batch(const float *from, int size, const int *order, const float *mean, float scale, float *to) {
  for (int k = 0; k < 3; k++) {
    for (int i = 0; i < size; i++) to[k * size + i] = (from[4 * i + order[k]] - mean[k]) * scale;
  }
}

static float opacity(float probability, float clear, float solid) {
  return larger(0, smaller(1, (probability - clear) / (solid - clear)));
}

// The person's own colours in a band of pixels, in place: effects.person_colors. `person` and
// `behind` are the estimates at a small size, `length` pixels a row.
EXPORT(own_colors)
void own_colors(unsigned char *pixels, const float *probability, int width, int height, float clear,
                float solid, const Pixel *person, const Pixel *behind, int length, const Place *columns,
                const Place *rows) {
  for (int y = 0; y < height; y++) {
    int above = length * rows[y].first, below = length * rows[y].second;
    for (int x = 0; x < width; x++, pixels += 4, probability++) {
      if (*probability <= clear || *probability >= solid) continue;  // nothing is mixed
      float alpha = opacity(*probability, clear, solid);
      int a = columns[x].first, b = columns[x].second;
      float u = columns[x].along, v = rows[y].along;
      Pixel own = between(person[above + a], person[above + b], person[below + a], person[below + b], u, v);
      Pixel other = between(behind[above + a], behind[above + b], behind[below + a], behind[below + b], u, v);
      Pixel color = own + alpha * (pixel(pixels) - alpha * own - (1 - alpha) * other);
      for (int c = 0; c < 3; c++) pixels[c] = (int)(larger(0, smaller(255, color[c])) + 0.5f);
    }
  }
}

// A row of `width` pixels of a small picture stretched bilinearly, in bytes; `row` is its place in it.
EXPORT(stretch_row)
void stretch_row(const Pixel *small, int length, const Place *columns, const Place *row, int width,
                 unsigned char *to) {
  const Pixel *above = small + length * row->first, *below = small + length * row->second;
  for (int x = 0; x < width; x++, to += 4) {
    int a = columns[x].first, b = columns[x].second;
    Pixel color = between(above[a], above[b], below[a], below[b], columns[x].along, row->along);
    v128_t whole = wasm_i32x4_trunc_sat_f32x4(wasm_f32x4_nearest((v128_t)color));
    whole = wasm_i16x8_narrow_i32x4(whole, whole);
    whole = wasm_u8x16_narrow_i16x8(whole, whole);
    wasm_v128_store32_lane(to, whole, 0);
  }
}

// Pixels in front of others, in place.
EXPORT(in_front)
void in_front(unsigned char *pixels, const float *probability, const unsigned char *behind, int length,
              float clear, float solid) {
  for (int i = 0; i < length; i++) {
    if (i + 4 <= length) {  // four at a time where they are all of one kind
      Four values = *(const Four *)(probability + i);
      int person = wasm_i32x4_all_true((v128_t)(values >= solid));
      int other = wasm_i32x4_all_true((v128_t)(values <= clear));
      if (other) *(Four *)(pixels + 4 * i) = *(const Four *)(behind + 4 * i);
      if (person || other) {
        i += 3;
        continue;
      }
    }
    float alpha = opacity(probability[i], clear, solid);
    Pixel back = pixel(behind + 4 * i);
    Pixel mixed = back + alpha * (pixel(pixels + 4 * i) - back) + 0.5f;
    for (int c = 0; c < 3; c++) pixels[4 * i + c] = (int)mixed[c];
  }
}

static int root(int *region, int run) {
  while (region[run] != run) run = region[run] = region[region[run]];
  return run;
}

// The runs of pixels above a level, or of the other ones, in each row, and the region of each: the
// 8-connected runs whose `region`, the number of one of them, is the same. Returns their number.
EXPORT(regions)
int regions(const float *values, int width, int height, float level, int above, int *starts, int *ends,
            int *region) {
  int count = 0, earlier = 0, row = 0;  // runs; the first of the row above that may touch; of this row
  for (int y = 0; y < height; y++) {
    earlier = row;
    row = count;
    int begin = y * width, end = begin + width;
    for (int i = begin; i < end;) {
      while (i < end && (values[i] > level) != above) i++;
      if (i == end) break;
      int start = i;
      while (i < end && (values[i] > level) == above) i++;
      starts[count] = start;
      ends[count] = i;
      region[count] = count;
      while (earlier < row && ends[earlier] < start - width) earlier++;
      for (int k = earlier; k < row && starts[k] <= i - width; k++) {
        region[root(region, k)] = root(region, count);
      }
      count++;
    }
  }
  for (int k = 0; k < count; k++) region[k] = root(region, k);
  return count;
}

// Colours times a weight; the weight is the fourth value. Never 0: the plain mean where all are.
EXPORT(weigh)
void weigh(Pixel *colors, const float *weights, int size) {
  for (int i = 0; i < size; i++) {
    float weight = weights[i] + 1e-4f;
    colors[i] *= weight;
    colors[i][3] = weight;
  }
}

// Colours of a mixture whose two parts are known: effects.unmix.
EXPORT(unmix)
void unmix(const Pixel *mixed, const float *alpha, Pixel *person, const Pixel *behind, int size) {
  for (int i = 0; i < size; i++) {
    Pixel color = person[i] + alpha[i] * (mixed[i] - alpha[i] * person[i] - (1 - alpha[i]) * behind[i]);
    for (int c = 0; c < 4; c++) person[i][c] = larger(0, smaller(255, color[c]));
  }
}

// Luma of RGBA in whole numbers, rounded as in OpenCV.
EXPORT(luma)
void luma(const float *colors, int size, float *to) {
  for (int i = 0; i < size; i++) {
    int red = colors[4 * i], green = colors[4 * i + 1], blue = colors[4 * i + 2];
    to[i] = (4899 * red + 9617 * green + 1868 * blue + 8192) >> 14;
  }
}

// How luma and probability differ from the last ones, two values a pixel.
EXPORT(changes)
void changes(const float *luma, const float *last, const float *values, const float *lastValues, int size,
             float *to) {
  for (int i = 0; i < size; i++) {
    to[2 * i] = luma[i] < last[i] ? last[i] - luma[i] : luma[i] - last[i];
    to[2 * i + 1] = values[i] - lastValues[i];
  }
}

// The last probability and a fraction of its change: Smoother in apps/video/smoothing.py. `around` is
// the mean of the changes near a pixel.
EXPORT(follow)
void follow(const float *last, const float *changes, const float *around, int size, float floor,
            float noise, float changed, float doubt, float moved, float *to) {
  for (int i = 0; i < size; i++) {
    float change = (around[2 * i] - noise) / (changed - noise);
    float difference = around[2 * i + 1] < 0 ? -around[2 * i + 1] : around[2 * i + 1];
    float most = larger(change, (difference - doubt) / (moved - doubt));
    to[i] = last[i] + larger(floor, smaller(1, floor + (1 - floor) * most)) * changes[2 * i + 1];
  }
}
