// Resampling on plain arrays, equal to what transforms/geometry.py and predictor.py do with OpenCV.
// A picture is { width, height, channels, data }: rows from the top, channels interleaved.

export const GRID = 32; // these four: transforms/geometry.py
export const MOST_ELONGATED = 2;
export const AREA_WEIGHT = 0.25;
export const GUIDE_SIDE = 128; // these four: predictor.py
export const GUIDE_RADIUS = 0.03;
export const GUIDE_EPSILON = 1e-3;
export const FLAT = 0.05;

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
  const size = limited(image, GUIDE_SIDE);
  const answer = interpolate(probability, ...size);
  answer.data = answer.data.map((value) => value ** 2 / (value ** 2 + (1 - value) ** 2));
  const fit = colorFit(smallGuide(image, size), answer).data;
  const [least, most] = extremes(answer);
  const spread = picture(...size, 1, most.map((value, i) => value - least[i]));
  const [, changes] = extremes(spread);

  const result = picture(width, height, 1);
  const columns = neighbours(size[0], width);
  const rows = neighbours(size[1], height);
  const narrow = picture(size[0], 1, 7).data; // slopes and offset, least, most, plain answer
  const changing = new Uint8Array(size[0]);
  for (let y = 0, to = 0; y < height; y++) {
    const above = rows.first[y] * size[0];
    const below = rows.second[y] * size[0];
    const between = (values, top, bottom) => values[top] + rows.fraction[y] * (values[bottom] - values[top]);
    for (let x = 0; x < size[0]; x++) {
      const [top, bottom] = [above + x, below + x];
      for (let c = 0; c < 4; c++) narrow[7 * x + c] = between(fit, 4 * top + c, 4 * bottom + c);
      narrow[7 * x + 4] = between(least, top, bottom);
      narrow[7 * x + 5] = between(most, top, bottom);
      narrow[7 * x + 6] = between(answer.data, top, bottom);
      changing[x] = Math.max(changes[top], changes[bottom]) > FLAT;
    }
    for (let x = 0; x < width; x++, to++) {
      const left = 7 * columns.first[x];
      const right = 7 * columns.second[x];
      const along = columns.fraction[x];
      if (changing[columns.first[x]] + changing[columns.second[x]] === 0) {
        result.data[to] = narrow[left + 6] + along * (narrow[right + 6] - narrow[left + 6]);
        continue;
      }
      let value = narrow[left + 3] + along * (narrow[right + 3] - narrow[left + 3]);
      for (let c = 0; c < 3; c++) {
        const slope = narrow[left + c] + along * (narrow[right + c] - narrow[left + c]);
        value += (slope / 255) * image.data[4 * to + c];
      }
      const low = narrow[left + 4] + along * (narrow[right + 4] - narrow[left + 4]);
      const high = narrow[left + 5] + along * (narrow[right + 5] - narrow[left + 5]);
      result.data[to] = value < low ? low : value > high ? high : value;
    }
  }
  return result;
}

/** The least and the greatest value of the 3x3 pixels around each. */
function extremes({ width, height, data }) {
  const [least, most] = [data.slice(), data.slice()];
  for (let y = 0, i = 0; y < height; y++) {
    const [top, bottom] = [Math.max(0, y - 1), Math.min(height - 1, y + 1)];
    for (let x = 0; x < width; x++, i++) {
      const [left, right] = [Math.max(0, x - 1), Math.min(width - 1, x + 1)];
      for (let v = top; v <= bottom; v++) {
        for (let u = left; u <= right; u++) {
          const value = data[v * width + u];
          if (value < least[i]) least[i] = value;
          if (value > most[i]) most[i] = value;
        }
      }
    }
  }
  return [least, most];
}

/** The image shrunk, in whole numbers; of a large one not every pixel counts. */
function smallGuide(image, [width, height]) {
  const large = Math.max(image.width, image.height) > 8 * GUIDE_SIDE;
  const guide = resize(large ? interpolate(image, 4 * width, 4 * height) : image, width, height);
  guide.data = guide.data.map(round);
  return guide;
}

const MOMENTS = 13; // of `colorFit`: r g b p, rp gp bp, rr rg rb gg gb bb

/** Slopes of red, green and blue (0..1) and the offset: predictor.color_fit. */
function colorFit(guide, { width, height, data }) {
  const moments = picture(width, height, MOMENTS);
  for (let i = 0, to = 0; i < data.length; i++) {
    const r = guide.data[4 * i] / 255;
    const g = guide.data[4 * i + 1] / 255;
    const b = guide.data[4 * i + 2] / 255;
    const p = data[i];
    for (const value of [r, g, b, p, r * p, g * p, b * p, r * r, r * g, r * b, g * g, g * b, b * b]) {
      moments.data[to++] = value;
    }
  }
  const radius = Math.max(1, round(GUIDE_RADIUS * Math.max(width, height)));
  const means = boxMean(moments, radius).data;
  const fit = picture(width, height, 4);
  for (let i = 0; i < data.length; i++) {
    const at = MOMENTS * i;
    const [r, g, b, p] = [means[at], means[at + 1], means[at + 2], means[at + 3]];
    const [rp, gp, bp] = [means[at + 4], means[at + 5], means[at + 6]];
    const [x, y, z] = [rp - r * p, gp - g * p, bp - b * p];
    const rr = means[at + 7] - r * r + GUIDE_EPSILON;
    const rg = means[at + 8] - r * g;
    const rb = means[at + 9] - r * b;
    const gg = means[at + 10] - g * g + GUIDE_EPSILON;
    const gb = means[at + 11] - g * b;
    const bb = means[at + 12] - b * b + GUIDE_EPSILON;
    // The symmetric 3x3 system is solved by its adjugate.
    const [ra, ga, ba] = [gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg];
    const mixed = rg * rb - rr * gb;
    const determinant = rr * ra + rg * ga + rb * ba;
    const red = (ra * x + ga * y + ba * z) / determinant;
    const green = (ga * x + (rr * bb - rb * rb) * y + mixed * z) / determinant;
    const blue = (ba * x + mixed * y + (rr * gg - rg * rg) * z) / determinant;
    fit.data[4 * i] = red;
    fit.data[4 * i + 1] = green;
    fit.data[4 * i + 2] = blue;
    fit.data[4 * i + 3] = p - red * r - green * g - blue * b;
  }
  return boxMean(fit, radius);
}
