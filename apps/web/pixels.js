// Resampling on plain arrays, equal to what transforms/geometry.py and predictor.py do with OpenCV.
// A picture is { width, height, channels, data }: rows from the top, channels interleaved.

export const GRID = 32; // these four: transforms/geometry.py
export const MOST_ELONGATED = 2;
export const AREA_WEIGHT = 0.25;
export const GUIDE_SIDE = 256; // these three: predictor.py
export const GUIDE_RADIUS = 0.015;
export const GUIDE_EPSILON = 1e-3;

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
 * A probability brought to the image's size, its edges following the image's:
 * predictor.guided_upsample.
 *
 * @param probability picture of one channel, 0..1, the network's answer for the image's view
 * @param image picture, RGBA
 * @returns picture of one channel, 0..1, of the image's size
 */
export function guidedUpsample(probability, image) {
  const { width, height } = image;
  const small = limited(image, GUIDE_SIDE);
  const grey = luma(image);
  const guides = resize(grey, ...small).data;
  const probabilities = interpolate(probability, ...small).data;
  const moments = picture(small[0], small[1], 4); // guide, probability, and both times the guide
  for (let i = 0; i < guides.length; i++) {
    const guide = round(guides[i]) / 255;
    moments.data[4 * i] = guide;
    moments.data[4 * i + 1] = probabilities[i];
    moments.data[4 * i + 2] = guide * guide;
    moments.data[4 * i + 3] = guide * probabilities[i];
  }
  const radius = Math.max(1, round(GUIDE_RADIUS * Math.max(...small)));
  const means = boxMean(moments, radius).data;
  const fit = picture(small[0], small[1], 2); // slope and offset
  for (let i = 0; i < guides.length; i++) {
    const [guide, mean] = [means[4 * i], means[4 * i + 1]];
    const variance = means[4 * i + 2] - guide * guide;
    const slope = (means[4 * i + 3] - guide * mean) / (variance + GUIDE_EPSILON);
    fit.data[2 * i] = slope / 255; // the image's luma counts 0..255
    fit.data[2 * i + 1] = mean - slope * guide;
  }
  const result = picture(width, height, 1);
  let to = 0;
  for (const row of stretchedRows(boxMean(fit, radius), width, height)) {
    for (let x = 0; x < width; x++, to++) {
      const value = row[2 * x] * grey.data[to] + row[2 * x + 1];
      result.data[to] = Math.min(1, Math.max(0, value));
    }
  }
  return result;
}
