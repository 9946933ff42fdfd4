// Resampling on plain arrays, equal to what transforms/geometry.py and predictor.py do with OpenCV.
// A picture is { width, height, channels, data }: rows from the top, channels interleaved.

export const GRID = 32; // these four: transforms/geometry.py
export const MOST_ELONGATED = 2;
export const AREA_WEIGHT = 0.25;
export const GUIDE_SIDE = 128; // these six: predictor.py
export const GUIDE_RADIUS = 0.03;
export const GUIDE_EPSILON = 1e-3;
export const REACH = 0.015;
export const FLAT = 0.1;
export const STEEP = 0.5;

/** Python's round(): halves go to the even number. */
export function round(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}

export function picture(width, height, channels, data) {
  return { width, height, channels, data: data ?? new Float32Array(width * height * channels) };
}

/** A canvas's ImageData as a picture of 4 channels, without a copy. */
export const ofImageData = (image) => picture(image.width, image.height, 4, image.data);

/** Width and height shrunk to at most `side` pixels. */
export function limited({ width, height }, side) {
  const ratio = Math.min(1, side / Math.max(width, height));
  return [Math.max(1, round(width * ratio)), Math.max(1, round(height * ratio))];
}

/** Area averaging where the picture shrinks, bilinear where it grows; the values are not rounded. */
export function resize(source, width, height) {
  const shrinks = width < source.width || height < source.height;
  return shrinks ? average(source, width, height) : interpolate(source, width, height);
}

// A source pixel covers `scale` of a target pixel: of that, `inside` falls on target `first` and
// `rest` on the next one.
function overlaps(length, newLength) {
  const scale = newLength / length;
  return Array.from({ length }, (_, i) => {
    const first = Math.min(newLength - 1, Math.floor(i * scale + 1e-9));
    const rest = Math.max(0, (i + 1) * scale - (first + 1));
    return rest < 1e-6 ? { first, inside: scale, rest: 0 } : { first, inside: scale - rest, rest };
  });
}

let spare = new Float32Array(0);

/** Room for intermediate values, used again by the next call: a camera would fill the memory. */
function scratch(length) {
  if (spare.length < length) spare = new Float32Array(length);
  return spare.subarray(0, length);
}

function add(sums, to, values, from, length, weight) {
  for (let i = 0; i < length; i++) sums[to + i] += weight * values[from + i];
}

function average({ width: oldWidth, height: oldHeight, channels, data }, width, height) {
  const length = oldWidth * channels;
  const tall = scratch(length * height).fill(0);
  const row = new Float32Array(length); // `add` is fast when it meets one kind of array only
  overlaps(oldHeight, height).forEach(({ first, inside, rest }, y) => {
    row.set(data.subarray(y * length, (y + 1) * length));
    add(tall, first * length, row, 0, length, inside);
    if (rest) add(tall, (first + 1) * length, row, 0, length, rest);
  });
  const result = picture(width, height, channels);
  const columns = overlaps(oldWidth, width);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < oldWidth; x++) {
      const { first, inside, rest } = columns[x];
      const from = y * length + x * channels;
      const to = (y * width + first) * channels;
      add(result.data, to, tall, from, channels, inside);
      if (rest) add(result.data, to + channels, tall, from, channels, rest);
    }
  }
  return result;
}

/** For each of newLength pixels the two of `length` it lies between, and how near the second is. */
export function neighbours(length, newLength) {
  const first = new Int32Array(newLength);
  const second = new Int32Array(newLength);
  const fraction = new Float32Array(newLength);
  for (let i = 0; i < newLength; i++) {
    const at = Math.min(length - 1, Math.max(0, ((i + 0.5) * length) / newLength - 0.5));
    first[i] = Math.floor(at);
    second[i] = Math.min(length - 1, first[i] + 1);
    fraction[i] = at - first[i];
  }
  return { first, second, fraction };
}

/** Rows of a picture stretched to (width, height), one after the other, in one reused array. */
export function* stretchedRows({ width: oldWidth, height: oldHeight, channels, data }, width, height) {
  const columns = neighbours(oldWidth, width);
  const rows = neighbours(oldHeight, height);
  const length = oldWidth * channels;
  const narrow = new Float32Array(length);
  const wide = new Float32Array(width * channels);
  for (let y = 0; y < height; y++) {
    const above = rows.first[y] * length;
    const below = rows.second[y] * length;
    const down = rows.fraction[y];
    for (let i = 0; i < length; i++) {
      narrow[i] = data[above + i] + down * (data[below + i] - data[above + i]);
    }
    for (let c = 0; c < channels; c++) {
      for (let x = 0, to = c; x < width; x++, to += channels) {
        const left = narrow[columns.first[x] * channels + c];
        const right = narrow[columns.second[x] * channels + c];
        wide[to] = left + columns.fraction[x] * (right - left);
      }
    }
    yield wide;
  }
}

/** Bilinear, in both directions. */
export function interpolate(source, width, height) {
  const result = picture(width, height, source.channels);
  let to = 0;
  for (const row of stretchedRows(source, width, height)) {
    result.data.set(row, to);
    to += row.length;
  }
  return result;
}

/**
 * Width and height of the rectangle in which the network sees an image, about size * size pixels:
 * transforms.geometry.view_shape.
 */
export function viewShape({ width, height }, size) {
  const area = (size / GRID) ** 2;
  const most = round((MOST_ELONGATED * size) / GRID);
  let least = Infinity;
  let shape;
  for (let h = 1; h <= most; h++) {
    for (let w = 1; w <= most; w++) {
      const stretch = Math.log(h / w) - Math.log(height / width);
      const surplus = Math.log((h * w) / area);
      const misfit = Math.abs(stretch) + AREA_WEIGHT * Math.abs(surplus);
      if (misfit < least) [least, shape] = [misfit, [w * GRID, h * GRID]];
    }
  }
  return shape;
}

/** What the network sees of an image, RGBA in whole numbers: Predictor.prepare. */
export function prepare(image, { size }) {
  const view = resize(image, ...viewShape(image, size));
  for (let i = 0; i < view.data.length; i++) view.data[i] = round(view.data[i]); // as OpenCV
  return view;
}

/**
 * A view as the network takes it: normalised, one plane a channel.
 *
 * @param metadata mean, scale and channel_order, as export.py wrote them
 * @returns Float32Array (3, height, width)
 */
export function toBatch(view, { mean, scale, channel_order: order }) {
  const area = view.width * view.height;
  const batch = new Float32Array(3 * area);
  [...order].forEach((letter, plane) => {
    const channel = "RGB".indexOf(letter);
    for (let i = 0; i < area; i++) {
      batch[plane * area + i] = (view.data[4 * i + channel] - mean[plane]) * scale;
    }
  });
  return batch;
}

function reflect(i, length) {
  while (i < 0 || i >= length) i = i < 0 ? -1 - i : 2 * length - 1 - i;
  return i;
}

/** Mean over a square window of side 2 * radius + 1, mirrored at the border; any channels. */
export function boxMean({ width, height, channels, data }, radius) {
  const length = width * channels;
  const share = 1 / (2 * radius + 1);
  const passed = scratch(data.length);
  for (let y = 0; y < height; y++) {
    for (let c = 0; c < channels; c++) {
      const start = y * length + c;
      let sum = 0;
      for (let k = -radius; k <= radius; k++) sum += data[start + channels * reflect(k, width)];
      for (let x = 0; x < width; x++) {
        passed[start + channels * x] = sum * share;
        const next = x + radius + 1;
        const last = x - radius;
        sum +=
          data[start + channels * (next < width ? next : reflect(next, width))] -
          data[start + channels * (last >= 0 ? last : reflect(last, width))];
      }
    }
  }
  const result = picture(width, height, channels);
  const sums = new Float64Array(length);
  for (let k = -radius; k <= radius; k++) {
    const row = reflect(k, height) * length;
    for (let i = 0; i < length; i++) sums[i] += passed[row + i];
  }
  for (let y = 0; y < height; y++) {
    const next = reflect(y + radius + 1, height) * length;
    const last = reflect(y - radius, height) * length;
    for (let i = 0, to = y * length; i < length; i++, to++) {
      result.data[to] = sums[i] * share;
      sums[i] += passed[next + i] - passed[last + i];
    }
  }
  return result;
}

/** Brightness of an RGBA picture, 8 bits, as OpenCV rounds it. */
export function luma({ width, height, data }) {
  const result = picture(width, height, 1, new Uint8Array(width * height));
  for (let i = 0, from = 0; i < result.data.length; i++, from += 4) {
    result.data[i] = (4899 * data[from] + 9617 * data[from + 1] + 1868 * data[from + 2] + 8192) >> 14;
  }
  return result;
}

/**
 * A probability brought to the image's size, its edges following the image's near its boundary:
 * predictor.guided_upsample.
 *
 * @param probability picture of one channel, 0..1, the network's answer for the image's view
 * @param image picture, RGBA
 * @returns picture of one channel, 0..1, of the image's size
 */
export function guidedUpsample(probability, image) {
  const { width, height } = image;
  const size = limited(image, GUIDE_SIDE);
  const answer = interpolate(probability, ...size);
  answer.data = answer.data.map((value) => value ** 2 / (value ** 2 + (1 - value) ** 2));
  const near = nearness(answer);
  const fit = colorFit(smallGuide(image, size), answer).data;
  for (let i = 0, to = 0; i < near.length; i++, to += 4) {
    for (let c = 0; c < 3; c++) fit[to + c] *= near[i] / 255; // the image counts 0..255
    fit[to + 3] = near[i] * fit[to + 3] + (1 - near[i]) * answer.data[i];
  }

  const result = picture(width, height, 1);
  const columns = neighbours(size[0], width);
  const rows = neighbours(size[1], height);
  const narrow = new Float32Array(4 * size[0]);
  const sloping = new Uint8Array(size[0]); // elsewhere the image does not count
  for (let y = 0, to = 0; y < height; y++) {
    const above = rows.first[y] * size[0];
    const below = rows.second[y] * size[0];
    for (let i = 0; i < narrow.length; i++) {
      const top = fit[4 * above + i];
      narrow[i] = top + rows.fraction[y] * (fit[4 * below + i] - top);
    }
    for (let i = 0; i < sloping.length; i++) sloping[i] = near[above + i] + near[below + i] > 0;
    for (let x = 0; x < width; x++, to++) {
      const left = 4 * columns.first[x];
      const right = 4 * columns.second[x];
      const along = columns.fraction[x];
      let value = narrow[left + 3] + along * (narrow[right + 3] - narrow[left + 3]);
      if (sloping[left / 4] + sloping[right / 4] > 0) {
        for (let c = 0; c < 3; c++) {
          const slope = narrow[left + c] + along * (narrow[right + c] - narrow[left + c]);
          value += slope * image.data[4 * to + c];
        }
      }
      result.data[to] = value < 0 ? 0 : value > 1 ? 1 : value;
    }
  }
  return result;
}

/** The image shrunk, in whole numbers; of a large one not every pixel counts. */
function smallGuide(image, [width, height]) {
  const large = Math.max(image.width, image.height) > 8 * GUIDE_SIDE;
  const guide = resize(large ? interpolate(image, 4 * width, 4 * height) : image, width, height);
  guide.data = guide.data.map(round);
  return guide;
}

/** 1 at the boundary of a probability, 0 from REACH away on: predictor.nearness. */
function nearness({ width, height, data }) {
  const reach = Math.max(1, round(REACH * Math.hypot(width, height)));
  const range = (middle, length) => [Math.max(0, middle - reach), Math.min(length, middle + reach + 1)];
  const near = picture(width, height, 1);
  for (let y = 0, to = 0; y < height; y++) {
    const [top, bottom] = range(y, height);
    for (let x = 0; x < width; x++, to++) {
      const [left, right] = range(x, width);
      let [least, most] = [1, 0];
      for (let v = top; v < bottom; v++) {
        for (let i = v * width + left; i < v * width + right; i++) {
          if (data[i] < least) least = data[i];
          if (data[i] > most) most = data[i];
        }
      }
      near.data[to] = Math.min(1, Math.max(0, (most - least - FLAT) / (STEEP - FLAT)));
    }
  }
  return boxMean(near, 1).data;
}

// What `colorFit` averages: three colours and the probability, the probability times each colour,
// and the products of these pairs of colours.
const PAIRS = [[0, 0], [0, 1], [0, 2], [1, 1], [1, 2], [2, 2]];
const MOMENTS = 4 + 3 + PAIRS.length;

/** Slopes of red, green and blue (0..1) and the offset: predictor.color_fit. */
function colorFit(guide, { width, height, data }) {
  const moments = picture(width, height, MOMENTS);
  for (let i = 0, to = 0; i < data.length; i++, to += MOMENTS) {
    for (let c = 0; c < 3; c++) {
      moments.data[to + c] = guide.data[4 * i + c] / 255;
      moments.data[to + 4 + c] = moments.data[to + c] * data[i];
    }
    moments.data[to + 3] = data[i];
    PAIRS.forEach(([a, b], k) => {
      moments.data[to + 7 + k] = moments.data[to + a] * moments.data[to + b];
    });
  }
  const radius = Math.max(1, round(GUIDE_RADIUS * Math.max(width, height)));
  const means = boxMean(moments, radius).data;
  const fit = picture(width, height, 4);
  for (let i = 0, from = 0; i < data.length; i++, from += MOMENTS) {
    const mean = (k) => means[from + k];
    const [x, y, z] = [0, 1, 2].map((c) => mean(4 + c) - mean(c) * mean(3));
    const [rr, rg, rb, gg, gb, bb] = PAIRS.map(
      ([a, b], k) => mean(7 + k) - mean(a) * mean(b) + (a === b ? GUIDE_EPSILON : 0),
    );
    // The symmetric 3x3 system is solved by its adjugate.
    const [ra, ga, ba] = [gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg];
    const determinant = rr * ra + rg * ga + rb * ba;
    const mixed = rg * rb - rr * gb;
    const slopes = [
      (ra * x + ga * y + ba * z) / determinant,
      (ga * x + (rr * bb - rb * rb) * y + mixed * z) / determinant,
      (ba * x + mixed * y + (rr * gg - rg * rg) * z) / determinant,
    ];
    const offset = slopes.reduce((rest, slope, c) => rest - slope * mean(c), mean(3));
    fit.data.set([...slopes, offset], 4 * i);
  }
  return boxMean(fit, radius);
}
