// Resampling and guided upsampling on plain arrays: the same results as portraitnet/geometry.py and
// portraitnet/postprocess.py, which use OpenCV.
// A picture is { width, height, channels, data }: rows from the top, channels interleaved.

import { at, bytes, indices, room, wasm } from "./wasm.js";

export const GRID = 32; // these three: portraitnet/geometry.py
export const MAX_ELONGATION = 2;
export const AREA_WEIGHT = 0.25;
export const GUIDE_SIDE = 112; // these eight: portraitnet/postprocess.py
export const GUIDE_RADIUS = 0.025;
export const GUIDE_EPSILON = 1.25e-3;
export const APPLY_SIDE = 800;
export const SPIKE = 0.0025;
export const SPECK = 0.001;
export const SUPPORT = 0.3;
export const CLEAR = 0.33; // a pixel is background up to this probability
export const THRESHOLD = 0.5; // a pixel is person above this probability: portraitnet/images.py
const STILL = 1 / 512; // a difference of probabilities too small to spend time on
const MOMENTS = 13; // of pixels.c

/** Python's round(): halves are rounded to the even number. */
export function round(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}

/** Round all values of a picture in place, halves to the even number as OpenCV does. */
function roundAll(source) {
  const [values] = room(source.data.length);
  values.set(source.data);
  wasm.round_all(at(values), values.length);
  source.data.set(values);
  return source;
}

export function picture(width, height, channels, data) {
  return { width, height, channels, data: data ?? new Float32Array(width * height * channels) };
}

/** A canvas's ImageData as a picture of 4 channels, without a copy. */
export const ofImageData = (image) => picture(image.width, image.height, 4, image.data);

/** A picture shrunk to at most `side` pixels on its longer side, opaque: geometry.limited. */
export function limited(source, side) {
  const [width, height] = limitedSize(source, side);
  if (width === source.width && height === source.height) return source;
  if (!shrinksLittle(source, width, height)) return roundAll(resize(source, width, height));
  const result = picture(width, height, 4, new Uint8Array(4 * width * height).fill(255));
  const write = colorsOf(source, width, height);
  for (let y = 0; y < height; y++) write(y, 0, width, result.data, 4 * width * y);
  return result;
}

/** Whether a pixel and its neighbours suffice: no side shrinks to less than half. */
const shrinksLittle = (source, width, height) => 2 * height > source.height && 2 * width > source.width;

/**
 * A function that writes red, green and blue of the pixels `from` to `to` of row y into an array of
 * bytes, four a pixel, beginning at `at`: of the source resampled bilinearly to (width, height).
 */
function colorsOf(source, width, height) {
  const columns = neighbours(source.width, width);
  const rows = neighbours(source.height, height);
  const left = columns.first.map((x) => 4 * x);
  const right = columns.second.map((x) => 4 * x);
  return (y, from, to, result, at) => {
    const above = 4 * source.width * rows.first[y];
    const below = 4 * source.width * rows.second[y];
    const down = rows.fraction[y];
    writeColors(source.data, above, below, down, left, right, columns.fraction, from, to, result, at);
  };
}

// Written out for each channel: a loop over the channels takes twice as long.
function writeColors(data, above, below, down, left, right, fraction, from, to, result, at) {
  for (let x = from; x < to; x++, at += 4) {
    const along = fraction[x];
    const a = above + left[x];
    const b = above + right[x];
    const d = below + left[x];
    const e = below + right[x];
    let upper = data[a] + along * (data[b] - data[a]);
    let lower = data[d] + along * (data[e] - data[d]);
    result[at] = (upper + down * (lower - upper) + 0.5) | 0;
    upper = data[a + 1] + along * (data[b + 1] - data[a + 1]);
    lower = data[d + 1] + along * (data[e + 1] - data[d + 1]);
    result[at + 1] = (upper + down * (lower - upper) + 0.5) | 0;
    upper = data[a + 2] + along * (data[b + 2] - data[a + 2]);
    lower = data[d + 2] + along * (data[e + 2] - data[d + 2]);
    result[at + 2] = (upper + down * (lower - upper) + 0.5) | 0;
  }
}

/** [width, height] after shrinking to at most `side` pixels on the longer side. */
export function limitedSize({ width, height }, side) {
  const ratio = Math.min(1, side / Math.max(width, height));
  return [Math.max(1, round(width * ratio)), Math.max(1, round(height * ratio))];
}

/**
 * Area averaging where the picture shrinks, bilinear where it grows; values are not rounded.
 * A picture of this size already is returned as it is.
 */
export function resize(source, width, height) {
  if (width === source.width && height === source.height) return source;
  const shrinks = width < source.width || height < source.height;
  return shrinks ? average(source, width, height) : interpolate(source, width, height);
}

const SPAN = 5; // values of a Span and of a Place in pixels.c
export const PLACE = 3;
export const PIECE = 1 << 20; // values of a large picture that pixels.c gets at a time

/**
 * The ranges of old pixels that the new pixels `from` to `to` cover, as pixels.c has them, counted
 * from the first of them. Returns the first old pixel and the one after the last.
 */
function writeSpans(result, length, newLength, from = 0, to = newLength) {
  const whole = indices(result);
  const scale = newLength / length;
  const firstOf = (i) => Math.floor(i / scale + 1e-6);
  const lastOf = (i) => Math.min(length, Math.ceil((i + 1) / scale - 1e-6)) - 1;
  for (let i = from, at = 0; i < to; i++, at += SPAN) {
    const [first, last] = [firstOf(i), lastOf(i)];
    [whole[at], whole[at + 1]] = [first - firstOf(from), last - firstOf(from)];
    result[at + 2] = first === last ? 1 : (first + 1 - i / scale) * scale;
    result[at + 3] = first === last ? 0 : ((i + 1) / scale - last) * scale;
    result[at + 4] = scale;
  }
  return [firstOf(from), lastOf(to - 1) + 1];
}

/** The neighbours of newLength pixels as pixels.c has them. */
export function writePlaces(result, { first, second, fraction }) {
  const whole = indices(result);
  for (let i = 0, at = 0; i < first.length; i++, at += PLACE) {
    [whole[at], whole[at + 1], result[at + 2]] = [first[i], second[i], fraction[i]];
  }
}

function average(source, width, height) {
  const { channels, data } = source;
  const isBytes = !(data instanceof Float32Array);
  const length = source.width * channels;
  const newLength = width * channels;
  // A large picture passes through in pieces, because the program never gives memory back.
  const ratio = source.height / height;
  const lines = Math.min(height, Math.max(1, Math.floor(PIECE / length / ratio))); // of a new piece
  const piece = (Math.ceil(lines * ratio) + 1) * length;
  const [old, columns, rows, tall, to] = room(
    isBytes ? piece / 4 : piece, SPAN * width, SPAN * lines, length, lines * newLength,
  );
  const given = isBytes ? bytes(old) : old;
  writeSpans(columns, source.width, width);
  const result = picture(width, height, channels);
  for (let y = 0; y < height; y += lines) {
    const end = Math.min(height, y + lines);
    const [first, last] = writeSpans(rows, source.height, height, y, end);
    given.set(data.subarray(first * length, last * length));
    wasm.average(
      isBytes ? at(old) : 0, at(old), length, channels, width, end - y, at(columns), at(rows), at(tall), at(to),
    );
    result.data.set(to.subarray(0, (end - y) * newLength), y * newLength);
  }
  return result;
}

/** For each of newLength pixels: the two old pixels around its centre, and the weight of the second. */
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

/** A function that writes row y of a picture stretched to (width, height) into an array, at `to`. */
function stretcher({ width: oldWidth, height: oldHeight, channels, data }, width, height) {
  const columns = neighbours(oldWidth, width);
  const rows = neighbours(oldHeight, height);
  const length = oldWidth * channels;
  const narrow = new Float32Array(length + 1); // the right neighbour of the last value has no weight
  return (y, result, to) => {
    mix(data, rows.first[y] * length, rows.second[y] * length, rows.fraction[y], length, narrow);
    if (channels === 4) stretchRow4(narrow, columns, result, to);
    else stretchRow1(narrow, columns.first, columns.fraction, result, to);
  };
}

// These loops are functions of their own: in a closure they take several times as long.

/** Interpolate between two rows of `data` that begin at `above` and `below`. */
function mix(data, above, below, down, length, result) {
  for (let i = 0; i < length; i++) {
    const value = data[above + i];
    result[i] = value + down * (data[below + i] - value);
  }
}

function stretchRow1(narrow, first, fraction, wide, to) {
  for (let x = 0; x < first.length; x++, to++) {
    const at = first[x];
    const left = narrow[at];
    wide[to] = left + fraction[x] * (narrow[at + 1] - left);
  }
}

function stretchRow4(narrow, { first, second, fraction }, wide, to) {
  for (let x = 0; x < first.length; x++, to += 4) {
    const left = 4 * first[x];
    const right = 4 * second[x];
    const along = fraction[x];
    wide[to] = narrow[left] + along * (narrow[right] - narrow[left]);
    wide[to + 1] = narrow[left + 1] + along * (narrow[right + 1] - narrow[left + 1]);
    wide[to + 2] = narrow[left + 2] + along * (narrow[right + 2] - narrow[left + 2]);
    wide[to + 3] = narrow[left + 3] + along * (narrow[right + 3] - narrow[left + 3]);
  }
}

/** Bilinear resampling in both directions. */
export function interpolate(source, width, height, result = picture(width, height, source.channels)) {
  if (width === source.width && height === source.height) {
    result.data.set(source.data);
    return result;
  }
  const write = stretcher(source, width, height);
  for (let y = 0; y < height; y++) write(y, result.data, y * width * source.channels);
  return result;
}

/**
 * [width, height] of an image's network input, about size * size pixels with nearly the image's
 * proportions: geometry.input_shape.
 */
export function inputShape({ width, height }, size) {
  const area = (size / GRID) ** 2;
  const maxSteps = round((MAX_ELONGATION * size) / GRID);
  let lowest = Infinity;
  let shape;
  for (let h = 1; h <= maxSteps; h++) {
    for (let w = 1; w <= maxSteps; w++) {
      const stretch = Math.log(h / w) - Math.log(height / width);
      const surplus = Math.log((h * w) / area);
      const misfit = Math.abs(stretch) + AREA_WEIGHT * Math.abs(surplus);
      if (misfit < lowest) [lowest, shape] = [misfit, [w * GRID, h * GRID]];
    }
  }
  return shape;
}

/** An image's network input, RGBA in whole numbers: Predictor.prepare. */
export function prepare(image, { size }) {
  return roundAll(resize(image, ...inputShape(image, size))); // as OpenCV rounds
}

/**
 * Normalise a network input, one plane per channel: predictor.to_batch.
 *
 * @param metadata mean, scale and channel_order, as export.py writes them
 * @returns Float32Array (3, height, width)
 */
export function toBatch(networkInput, { mean, scale, channel_order: order }) {
  const area = networkInput.width * networkInput.height;
  const [from, channels, means, batch] = room(4 * area, 3, 3, 3 * area);
  from.set(networkInput.data);
  indices(channels).set([...order].map((color) => "RGB".indexOf(color)));
  means.set(mean);
  wasm.to_batch(at(from), area, at(channels), at(means), scale, at(batch));
  return batch.slice();
}

/** Mean in a square window of side 2 * radius + 1, reflected at the border; any number of channels. */
export function boxMean({ width, height, channels, data }, radius) {
  const length = data.length;
  const [from, passed, sums, to] = room(length, length, width * channels, length);
  from.set(data);
  wasm.box_mean(at(from), width, height, channels, radius, at(passed), at(sums), at(to));
  return picture(width, height, channels, to.slice());
}

/** Luma of an RGBA picture, 0..255, rounded as in OpenCV. */
export function luma({ width, height, data }) {
  const result = picture(width, height, 1);
  const most = Math.min(data.length, PIECE); // in pieces, as in `average`
  const [colors, values] = room(most, most / 4);
  for (let from = 0; from < data.length; from += most) {
    const piece = data.subarray(from, from + most);
    const size = piece.length / 4;
    colors.set(piece);
    wasm.luma(at(colors), size, at(values));
    result.data.set(values.subarray(0, size), from / 4);
  }
  return result;
}

/**
 * Bring a probability to the image's size, with edges that follow the image's:
 * postprocess.guided_upsample.
 *
 * @param probability picture of one channel, 0..1: the network's probability of the network input
 * @param image picture, RGBA
 * @param guide the image again, or its network input, which is small already and so saves time
 * @param result picture of one channel to write, of the image's size: a camera reuses one
 * @returns `result`
 */
export function guidedUpsample(
  probability,
  image,
  guide = image,
  result = picture(image.width, image.height, 1),
) {
  const [appliedWidth, appliedHeight] = limitedSize(image, APPLY_SIDE);
  // A camera's frame is shrunk only where the fit is applied: near the person's contour.
  const later = guide !== image && shrinksLittle(image, appliedWidth, appliedHeight);
  const applied = later ? image : limited(image, APPLY_SIDE);
  const size = limitedSize({ width: appliedWidth, height: appliedHeight }, GUIDE_SIDE);
  const small = smallGuide(guide === image ? applied : guide, size);
  const odds = squaredOdds(interpolate(probability, small.width, small.height));
  const radius = Math.max(1, round(GUIDE_RADIUS * Math.max(small.width, small.height)));
  const spike = Math.max(1, round(SPIKE * Math.max(appliedWidth, appliedHeight)));
  const fit = { radius, epsilon: GUIDE_EPSILON, still: STILL, spike };
  const places = placesOf(small, appliedWidth, appliedHeight);
  const { refined, coarse } = applyFit(small, odds, fit, applied, places);
  withoutSpecks(refined, coarse);
  return interpolate(refined, image.width, image.height, result);
}

/** The columns and rows of (width, height) in a smaller picture. */
const placesOf = (small, width, height) => [neighbours(small.width, width), neighbours(small.height, height)];

/** A probability whose odds of person to background are squared: postprocess.squared_odds. */
function squaredOdds({ width, height, data }) {
  const result = picture(width, height, 1);
  for (let i = 0; i < data.length; i++) {
    const [person, background] = [data[i] * data[i], (1 - data[i]) * (1 - data[i])];
    result.data[i] = person / (person + background);
  }
  return result;
}

/**
 * A guided filter: a probability fitted to the colours of `guide`, and the fit applied to `image`.
 *
 * @param guide RGBA, float
 * @param odds one channel, of the same size
 * @param fit.radius of the windows, pixels of `guide`
 * @param fit.epsilon variance of a colour (0..1 squared) below which a window counts as flat
 * @param fit.still difference of neighbouring probabilities that is too small to spend time on
 * @param fit.spike radius of a disc, pixels of the result: a part of the mask in which it has no room
 *   is taken out, postprocess.without_spikes; 0 for none
 * @param image RGBA in bytes, shrunk bilinearly to the size of the result if it is larger
 * @param places the result's columns and rows in `guide`, as `neighbours` gives them
 * @returns `refined`, and `coarse`, the probability without the fit: pictures of one channel
 */
export function applyFit(guide, odds, { radius, epsilon, still, spike = 0 }, image, [columns, rows]) {
  const { width: w, height: h } = guide;
  const [width, height] = [columns.first.length, rows.first.length];
  const [few, many] = [w * h, width * height];
  const disc = spike ? discReach(spike) : [];
  const padded = spike ? (width + 2 * spike) * (height + 2 * spike) : 0;
  const [colors, given, low, high, moments, passed, means, sums, fit, row, ...rest] = room(
    4 * few, few, few, few, MOMENTS * few, MOMENTS * few, MOMENTS * few, MOMENTS * w, 4 * few, 8 * (w + 1),
    image.width * image.height, many, many, PLACE * width, PLACE * height, PLACE * width, PLACE * height,
    padded, padded, padded / 4, disc.length,
  );
  const [pixels, refined, coarse, xs, ys, imageXs, imageYs, first, second, marks, reach] = rest;
  colors.set(guide.data);
  given.set(odds.data);
  const { low: lows, high: highs } = extremes(odds);
  low.set(lows);
  high.set(highs);
  wasm.color_fit(
    at(colors), at(given), w, h, radius, epsilon, at(moments), at(passed), at(means), at(sums), at(fit),
  );
  bytes(pixels).set(image.data);
  writePlaces(xs, columns);
  writePlaces(ys, rows);
  writePlaces(imageXs, neighbours(image.width, width));
  writePlaces(imageYs, neighbours(image.height, height));
  wasm.apply_fit(
    at(fit), at(low), at(high), at(given), w, at(xs), at(ys), at(pixels), image.width, at(imageXs),
    at(imageYs), width, height, still, at(row), at(refined), at(coarse),
  );
  if (spike) {
    indices(reach).set(disc);
    wasm.without_spikes(
      at(refined), at(coarse), width, height, spike, at(reach), THRESHOLD, at(first), at(second), at(marks),
    );
  }
  return {
    refined: picture(width, height, 1, refined.slice()),
    coarse: picture(width, height, 1, coarse.slice()),
  };
}

/** Half width of OpenCV's elliptic structuring element in each of its rows. */
export function discReach(radius) {
  return Array.from({ length: 2 * radius + 1 }, (_, i) => round(Math.sqrt(radius ** 2 - (i - radius) ** 2)));
}

/** Remove small regions and fill small holes, in place: postprocess.without_specks. */
function withoutSpecks(refined, coarse) {
  const { data } = refined;
  const above = THRESHOLD + 2 ** -24; // the next float32
  for (const [level, sign] of [[CLEAR, 1], [THRESHOLD, 1], [THRESHOLD, -1]]) {
    const exact = Math.fround(level);
    for (const region of regionsOf(refined, exact, sign, SPECK * data.length)) {
      let [sum, area] = [0, 0];
      for (const [start, end] of region) {
        for (let i = start; i < end; i++) sum += coarse.data[i];
        area += end - start;
      }
      if (sign * (sum / area - THRESHOLD) >= SUPPORT) continue;
      for (const [start, end] of region) data.fill(sign > 0 ? exact : above, start, end);
    }
  }
}

/**
 * The 8-connected regions above a level (sign 1), or of the other pixels (sign -1), with fewer pixels
 * than maxArea. Each is a list of runs [start, end) of indices; a run lies in one row.
 */
export function regionsOf({ width, data }, level, sign, maxArea = Infinity) {
  const height = data.length / width;
  const most = height * ((width + 1) >> 1); // every second pixel starts a run
  const arrays = room(data.length, most, most, most);
  const [starts, ends, region] = arrays.slice(1).map(indices);
  arrays[0].set(data);
  const count = wasm.regions(at(arrays[0]), width, height, level, sign > 0, at(starts), at(ends), at(region));
  const areas = new Float64Array(count);
  for (let run = 0; run < count; run++) areas[region[run]] += ends[run] - starts[run];
  const regions = new Map();
  for (let run = 0; run < count; run++) {
    if (areas[region[run]] >= maxArea) continue;
    if (!regions.has(region[run])) regions.set(region[run], []);
    regions.get(region[run]).push([starts[run], ends[run]]);
  }
  return regions.values();
}

/** Minimum and maximum of the 3x3 pixels around each pixel: first along rows, then along columns. */
function extremes({ width, height, data }) {
  const [rowLow, rowHigh] = [new Float32Array(data.length), new Float32Array(data.length)];
  const [low, high] = [new Float32Array(data.length), new Float32Array(data.length)];
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const left = data[x ? i - 1 : i];
      const right = data[x < width - 1 ? i + 1 : i];
      rowLow[i] = Math.min(Math.min(left, data[i]), right);
      rowHigh[i] = Math.max(Math.max(left, data[i]), right);
    }
  }
  for (let y = 0, i = 0; y < height; y++) {
    const [up, down] = [y ? width : 0, y < height - 1 ? width : 0];
    for (let x = 0; x < width; x++, i++) {
      low[i] = Math.min(Math.min(rowLow[i - up], rowLow[i]), rowLow[i + down]);
      high[i] = Math.max(Math.max(rowHigh[i - up], rowHigh[i]), rowHigh[i + down]);
    }
  }
  return { low, high };
}

/** The image shrunk, in whole numbers; large images are subsampled first, to save time. */
function smallGuide(image, [width, height]) {
  return roundAll(resize(limited(image, 4 * GUIDE_SIDE), width, height));
}
