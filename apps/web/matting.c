// Closed-form matting for matting.js, as portraitnet/matting.py has it: Levin, Lischinski and Weiss,
// "A Closed-Form Solution to Natural Image Matting", PAMI 2008, equation 12.

#define EXPORT(name) __attribute__((export_name(#name)))
#define SIDE 5  // the pixels that lie in one 3x3 window with a pixel: 5x5 around it
#define ROW (SIDE * SIDE)

// Engines compile a function well only when it has been called often: the loops are functions.
#define LOOP static __attribute__((noinline))

typedef float Four __attribute__((vector_size(16), aligned(4)));

// Whether a value from `low` to `high` lies within a disc around each pixel, as `yes` or its contrary.
// `reach` is the disc's half width in each row; `far` has room for the picture.
EXPORT(near)
void near(const float *values, int width, int height, float low, float high, int radius,
          const int *reach, int yes, int *far, unsigned char *result) {
  for (int y = 0; y < height; y++) {
    int *row = far + y * width, distance = width;
    for (int x = 0; x < width; x++) {
      float value = values[y * width + x];
      row[x] = distance = value >= low && value <= high ? 0 : distance + 1;
    }
    for (int x = width - 1; x >= 0; x--) {
      distance = row[x] < distance + 1 ? row[x] : distance + 1;
      row[x] = distance;
    }
  }
  for (int y = 0; y < height; y++) {
    unsigned char *to = result + y * width;
    for (int x = 0; x < width; x++) to[x] = !yes;
    for (int v = -radius; v <= radius; v++) {
      if (y + v < 0 || y + v >= height) continue;
      const int *row = far + (y + v) * width;
      for (int x = 0; x < width; x++) to[x] = row[x] <= reach[v + radius] ? yes : to[x];
    }
  }
}

// A window's colours less their mean, and these times the inverse of their covariance.
LOOP void window(const unsigned char *center, int stride, float epsilon, float colors[9][3],
                   float pulled[9][3]) {
  float mean[3] = {0, 0, 0};
  double s[6] = {0, 0, 0, 0, 0, 0};  // flat windows leave nearly nothing of it
  for (int k = 0; k < 9; k++) {
    const unsigned char *pixel = center + 4 * ((k / 3 - 1) * stride + k % 3 - 1);
    for (int c = 0; c < 3; c++) mean[c] += (colors[k][c] = pixel[c] / 255.0f) / 9;
  }
  for (int k = 0; k < 9; k++) {
    for (int c = 0; c < 3; c++) colors[k][c] -= mean[c];
    double r = colors[k][0], g = colors[k][1], b = colors[k][2];
    double products[6] = {r * r, r * g, r * b, g * g, g * b, b * b};
    for (int i = 0; i < 6; i++) s[i] += products[i] / 9;
  }
  // The symmetric matrix is inverted by its adjugate.
  double rr = s[0] + epsilon / 9, rg = s[1], rb = s[2], gg = s[3] + epsilon / 9, gb = s[4];
  double bb = s[5] + epsilon / 9;
  double a[3][3] = {{gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg},
                    {rb * gb - rg * bb, rr * bb - rb * rb, rg * rb - rr * gb},
                    {rg * gb - rb * gg, rg * rb - rr * gb, rr * gg - rg * rg}};
  double determinant = rr * a[0][0] + rg * a[0][1] + rb * a[0][2];
  for (int k = 0; k < 9; k++) {
    for (int i = 0; i < 3; i++) {
      double sum = a[i][0] * colors[k][0] + a[i][1] * colors[k][1] + a[i][2] * colors[k][2];
      pulled[k][i] = sum / determinant;
    }
  }
}

// The matting Laplacian times `plane` in the unknown pixels: five rows of five, four at once.
LOOP void multiply(const float *coefficients, const int *positions, int count, int width,
                     const float *plane, float *result) {
  for (int u = 0; u < count; u++, coefficients += ROW) {
    const float *around = plane + positions[u] - 2 * width - 2;
    Four sums = {0, 0, 0, 0};
    float last = 0;
    for (int row = 0; row < SIDE; row++) {
      sums += *(const Four *)(coefficients + row * SIDE) * *(const Four *)(around + row * width);
      last += coefficients[row * SIDE + 4] * around[row * width + 4];
    }
    result[u] = sums[0] + sums[1] + sums[2] + sums[3] + last;
  }
}

// Product of a plane in the unknown pixels with a list, and the sum of the plane's absolute values.
LOOP double dot(const float *plane, const int *positions, const float *list, int count, double *length) {
  double sum = 0, total = 0;
  for (int u = 0; u < count; u++) {
    float value = plane[positions[u]];
    sum += (double)value * list[u];
    total += value < 0 ? -value : value;
  }
  *length = total;
  return sum;
}

// One step along `direction`; the new residual, divided by the diagonal, is `scaled`. Returns the
// product of both.
LOOP double advance(float *alpha, const float *direction, const int *positions, int count, float step,
                    const float *coefficients, const float *product, float *residual, float *scaled) {
  double energy = 0;
  for (int u = 0; u < count; u++) {
    alpha[positions[u]] += step * direction[positions[u]];
    residual[u] -= step * product[u];
    scaled[u] = residual[u] / (coefficients[ROW * u + ROW / 2] + 1e-6f);
    energy += (double)residual[u] * scaled[u];
  }
  return energy;
}

LOOP void turn(float *direction, const int *positions, int count, const float *scaled, float kept) {
  for (int u = 0; u < count; u++) {
    direction[positions[u]] = scaled[u] + kept * direction[positions[u]];
  }
}

// The coefficients of the pixels that share a window around `center` with an unknown one.
LOOP void addWindow(const unsigned char *image, const int *center, int width, float epsilon,
                    float *coefficients) {
  float colors[9][3], pulled[9][3];
  window(image, width, epsilon, colors, pulled);
  for (int i = 0; i < 9; i++) {
    int u = center[(i / 3 - 1) * width + i % 3 - 1];
    if (u < 0) continue;
    for (int j = 0; j < 9; j++) {
      float pull = 1;
      for (int c = 0; c < 3; c++) pull += pulled[i][c] * colors[j][c];
      coefficients[ROW * u + (j / 3 - i / 3 + 2) * SIDE + j % 3 - i % 3 + 2] += (i == j) - pull / 9;
    }
  }
}

// Solve the `count` opacities at `positions` by conjugate gradients, in place, preconditioned by the
// diagonal. `alpha` and `direction` have room for 2 * width + 2 values before the first and after
// the last pixel; `index` has room for the picture, `coefficients` for ROW values an unknown pixel.
EXPORT(closed_form)
void closed_form(const unsigned char *image, float *alpha, int width, int height, int count,
                 const int *positions, float epsilon, int iterations, float tolerance, int *index,
                 float *coefficients, float *residual, float *product, float *scaled,
                 float *direction) {
  int size = width * height, margin = 2 * width + 2;
  for (int i = 0; i < size; i++) index[i] = -1;
  for (int u = 0; u < count; u++) index[positions[u]] = u;
  for (int i = 0; i < ROW * count; i++) coefficients[i] = 0;
  for (int y = 1; y < height - 1; y++) {
    for (int x = 1; x < width - 1; x++) {
      const int *center = index + y * width + x;
      int wanted = 0;
      for (int k = 0; k < 9; k++) wanted |= center[(k / 3 - 1) * width + k % 3 - 1] >= 0;
      if (!wanted) continue;
      addWindow(image + 4 * (y * width + x), center, width, epsilon, coefficients);
    }
  }
  for (int i = -margin; i < size + margin; i++) direction[i] = 0;
  multiply(coefficients, positions, count, width, alpha, product);
  for (int u = 0; u < count; u++) residual[u] = 0;
  double energy = advance(alpha, direction, positions, count, 1, coefficients, product, residual, scaled);
  turn(direction, positions, count, scaled, 0);
  for (int i = 0; i < iterations && energy > 1e-20; i++) {
    multiply(coefficients, positions, count, width, direction, product);
    double length, step = energy / dot(direction, positions, product, count, &length);
    double last = energy;
    energy = advance(alpha, direction, positions, count, step, coefficients, product, residual, scaled);
    if (step * length / count < tolerance) break;
    turn(direction, positions, count, scaled, energy / last);
  }
  for (int u = 0; u < count; u++) {
    float *value = alpha + positions[u];
    *value = *value < 0 ? 0 : *value > 1 ? 1 : *value;
  }
}
