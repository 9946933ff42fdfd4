// Resampling and guided upsampling on plain arrays: the same results as portraitnet/geometry.py and
// portraitnet/postprocess.py, which use OpenCV.
// A picture is { width, height, channels, data }: rows from the top, channels interleaved.

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

/** Python's round(): halves are rounded to the even number. */
export function round(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}

/** Round all values of a picture in place; no value may be below 0. */
function roundAll(source) {
  const { data } = source;
  for (let i = 0; i < data.length; i++) {
    const rounded = (data[i] + 0.5) | 0;
    data[i] = rounded - data[i] === 0.5 ? rounded & ~1 : rounded;
  }
  return source;
}

export function picture(width, height, channels, data) {
  return { width, height, channels, data: data ?? new Float32Array(width * height * channels) };
}

/** A canvas's ImageData as a picture of 4 channels, without a copy. */
export const ofImageData = (image) => picture(image.width, image.height, 4, image.data);

/**
 * A picture shrunk to at most `side` pixels on its longer side: geometry.limited. To more than half,
 * a pixel and its neighbours suffice.
 */
export function limited(source, side) {
  const [width, height] = limitedSize(source, side);
  if (width === source.width && height === source.height) return source;
  const few = 2 * height > source.height && 2 * width > source.width;
  return few ? sample(source, width, height) : roundAll(resize(source, width, height));
}

/** Bilinear resampling of an RGBA picture to whole numbers; a third of the time of `interpolate`. */
function sample(source, width, height) {
  const data = new Uint8Array(4 * width * height);
  const columns = neighbours(source.width, width);
  const rows = neighbours(source.height, height);
  const left = columns.first.map((x) => 4 * x);
  const right = columns.second.map((x) => 4 * x);
  for (let y = 0, to = 0; y < height; y++) {
    const above = 4 * source.width * rows.first[y];
    const below = 4 * source.width * rows.second[y];
    to = sampleRow(source.data, above, below, rows.fraction[y], left, right, columns.fraction, data, to);
  }
  return picture(width, height, 4, data);
}

function sampleRow(data, above, below, down, left, right, fraction, result, to) {
  for (let x = 0; x < left.length; x++) {
    const along = fraction[x];
    let a = above + left[x];
    let b = above + right[x];
    let d = below + left[x];
    let e = below + right[x];
    for (const end = to + 4; to < end; to++, a++, b++, d++, e++) {
      const upper = data[a] + along * (data[b] - data[a]);
      const lower = data[d] + along * (data[e] - data[d]);
      result[to] = upper + down * (lower - upper) + 0.5;
    }
  }
  return to;
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

/**
 * For each of newLength pixels: the range of old pixels that the new pixel covers, `first` to `last`,
 * and their weights: `begin` for the first, `end` for the last, `scale` for all others.
 */
function overlaps(length, newLength) {
  const scale = newLength / length;
  const [first, last] = [new Int32Array(newLength), new Int32Array(newLength)];
  const [begin, end] = [new Float64Array(newLength), new Float64Array(newLength)];
  for (let i = 0; i < newLength; i++) {
    const [from, to] = [i / scale, (i + 1) / scale];
    first[i] = Math.floor(from + 1e-6);
    last[i] = Math.min(length, Math.ceil(to - 1e-6)) - 1;
    begin[i] = (first[i] + 1 - from) * scale;
    end[i] = (to - last[i]) * scale;
    if (first[i] === last[i]) [begin[i], end[i]] = [1, 0];
  }
  return { first, last, begin, end, scale };
}

let spare = new Float32Array(0);

/** A reused buffer for intermediate values: new buffers for each frame would fill the memory. */
function scratch(length) {
  if (spare.length < length) spare = new Float32Array(length);
  return spare.subarray(0, length);
}

function average(source, width, height) {
  const { channels } = source;
  const narrowRow = channels === 4 ? averageRow4 : averageRow1;
  const result = picture(width, height, channels);
  const columns = overlaps(source.width, width);
  const rows = overlaps(source.height, height);
  const length = width * channels;
  const row = new Float32Array(length);
  const wide = new Float32Array(source.width * channels); // one array type keeps the loops fast
  let known = -1; // index of the source row that is in `row`: two target rows may need the same one
  for (let y = 0; y < height; y++) {
    const to = y * length;
    for (let from = rows.first[y]; from <= rows.last[y]; from++) {
      const weight = from === rows.first[y] ? rows.begin[y] : from === rows.last[y] ? rows.end[y] : rows.scale;
      if (known !== from) {
        wide.set(source.data.subarray(from * wide.length, (from + 1) * wide.length));
        narrowRow(wide, columns, row);
        known = from;
      }
      add(result.data, to, row, weight);
    }
  }
  return result;
}

function add(sums, to, values, weight) {
  for (let i = 0; i < values.length; i++) sums[to + i] += weight * values[i];
}

// One function for one channel and one for four: a loop over the channels takes three times as long.

function averageRow1(wide, { first, last, begin, end, scale }, row) {
  for (let x = 0; x < first.length; x++) {
    const from = first[x];
    const to = last[x];
    let sum = 0;
    for (let i = from + 1; i < to; i++) sum += wide[i];
    row[x] = scale * sum + begin[x] * wide[from] + end[x] * wide[to];
  }
}

function averageRow4(wide, { first, last, begin, end, scale }, row) {
  for (let x = 0, out = 0; x < first.length; x++, out += 4) {
    const from = 4 * first[x];
    const to = 4 * last[x];
    let red = 0;
    let green = 0;
    let blue = 0;
    let alpha = 0;
    for (let i = from + 4; i < to; i += 4) {
      red += wide[i];
      green += wide[i + 1];
      blue += wide[i + 2];
      alpha += wide[i + 3];
    }
    const a = begin[x];
    const b = end[x];
    row[out] = scale * red + a * wide[from] + b * wide[to];
    row[out + 1] = scale * green + a * wide[from + 1] + b * wide[to + 1];
    row[out + 2] = scale * blue + a * wide[from + 2] + b * wide[to + 2];
    row[out + 3] = scale * alpha + a * wide[from + 3] + b * wide[to + 3];
  }
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

/** Yields the rows of a picture stretched to (width, height), all in one reused array. */
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
    if (channels === 4) stretchRow4(narrow, columns, wide);
    else stretchRow1(narrow, columns, wide);
    yield wide;
  }
}

function stretchRow1(narrow, { first, second, fraction }, wide) {
  for (let x = 0; x < wide.length; x++) {
    const left = narrow[first[x]];
    wide[x] = left + fraction[x] * (narrow[second[x]] - left);
  }
}

function stretchRow4(narrow, { first, second, fraction }, wide) {
  for (let x = 0, to = 0; x < first.length; x++, to += 4) {
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
  const batch = new Float32Array(3 * area);
  for (let plane = 0, to = 0; plane < 3; plane++) {
    const middle = mean[plane];
    let from = "RGB".indexOf(order[plane]);
    for (const end = to + area; to < end; to++, from += 4) {
      batch[to] = (networkInput.data[from] - middle) * scale;
    }
  }
  return batch;
}

function reflect(i, length) {
  while (i < 0 || i >= length) i = i < 0 ? -1 - i : 2 * length - 1 - i;
  return i;
}

/** Mean in a square window of side 2 * radius + 1, reflected at the border; any number of channels. */
export function boxMean({ width, height, channels, data }, radius) {
  const length = width * channels;
  const weight = 1 / (2 * radius + 1);
  const passed = scratch(data.length);
  const sums = new Float64Array(length);
  const wide = new Float32Array(length + 2 * radius * channels); // a row with reflected ends
  const ahead = 2 * radius * channels;
  for (let y = 0; y < height; y++) {
    const start = y * length;
    wide.set(data.subarray(start, start + length), radius * channels);
    for (let k = 0; k < radius * channels; k++) {
      const [x, c] = [Math.floor(k / channels), k % channels];
      wide[k] = data[start + channels * reflect(x - radius, width) + c];
      wide[k + radius * channels + length] = data[start + channels * reflect(x + width, width) + c];
    }
    sums.fill(0, 0, channels);
    for (let k = 0; k < wide.length - length + channels; k++) sums[k % channels] += wide[k];
    for (let i = channels; i < length; i++) {
      sums[i] = sums[i - channels] + wide[i + ahead] - wide[i - channels];
    }
    for (let i = 0; i < length; i++) passed[start + i] = sums[i] * weight;
  }
  sums.fill(0);
  const result = picture(width, height, channels);
  for (let k = -radius; k <= radius; k++) {
    const row = reflect(k, height) * length;
    for (let i = 0; i < length; i++) sums[i] += passed[row + i];
  }
  for (let y = 0; y < height; y++) {
    const next = reflect(y + radius + 1, height) * length;
    const last = reflect(y - radius, height) * length;
    for (let i = 0, to = y * length; i < length; i++, to++) {
      result.data[to] = sums[i] * weight;
      sums[i] += passed[next + i] - passed[last + i];
    }
  }
  return result;
}

/** Luma of an RGBA picture, 0..255, rounded as in OpenCV. */
export function luma({ width, height, data }) {
  const result = picture(width, height, 1);
  for (let i = 0, from = 0; i < result.data.length; i++, from += 4) {
    result.data[i] = (4899 * data[from] + 9617 * data[from + 1] + 1868 * data[from + 2] + 8192) >> 14;
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
 * @returns picture of one channel, 0..1, of the image's size
 */
export function guidedUpsample(probability, image, guide = image) {
  const applied = limited(image, APPLY_SIDE);
  const small = smallGuide(guide === image ? applied : guide, limitedSize(applied, GUIDE_SIDE));
  const { width, height } = small;
  const odds = interpolate(probability, width, height);
  odds.data = odds.data.map((value) => value ** 2 / (value ** 2 + (1 - value) ** 2));
  const planes = picture(width, height, PLANES);
  const fit = colorFit(small, odds).data;
  const [low, high] = extremes(odds);
  for (let i = 0, to = 0; i < low.length; i++, to += PLANES) {
    for (let c = 0; c < 4; c++) planes.data[to + c] = fit[4 * i + c];
    planes.data[to + 4] = low[i];
    planes.data[to + 5] = high[i];
    planes.data[to + 6] = odds.data[i];
  }
  const [refined, coarse] = applyFit(planes, applied);
  withoutSpecks(withoutSpikes(refined, coarse), coarse);
  return applied === image ? refined : interpolate(refined, image.width, image.height);
}

const PLANES = 7; // of `applyFit`: 3 slopes, offset, least and greatest probability, probability

/** [the fit applied to the colours of `image`, the probability without it], each of one channel. */
function applyFit({ width: smallWidth, height: smallHeight, data }, image) {
  const { width, height } = image;
  const [refined, coarse] = [picture(width, height, 1), picture(width, height, 1)];
  const columns = neighbours(smallWidth, width);
  const rows = neighbours(smallHeight, height);
  const length = PLANES * smallWidth;
  const narrow = new Float32Array(length);
  for (let y = 0; y < height; y++) {
    const above = rows.first[y] * length;
    const below = rows.second[y] * length;
    const down = rows.fraction[y];
    for (let i = 0; i < length; i++) {
      narrow[i] = data[above + i] + down * (data[below + i] - data[above + i]);
    }
    applyRow(narrow, columns, image.data, refined.data, coarse.data, y * width);
  }
  return [refined, coarse];
}

/** Write one row of `applyFit`, beginning at the index `start`. */
function applyRow(narrow, { first, second, fraction }, colors, refined, coarse, start) {
  for (let x = 0, to = start; x < first.length; x++, to++) {
    const i = PLANES * first[x];
    const k = PLANES * second[x];
    const along = fraction[x];
    refined[to] = coarse[to] = narrow[i + 6] + along * (narrow[k + 6] - narrow[i + 6]);
    if (narrow[i + 5] - narrow[i + 4] < STILL && narrow[k + 5] - narrow[k + 4] < STILL) continue;
    const low = narrow[i + 4] + along * (narrow[k + 4] - narrow[i + 4]);
    const high = narrow[i + 5] + along * (narrow[k + 5] - narrow[i + 5]);
    const red = narrow[i] + along * (narrow[k] - narrow[i]);
    const green = narrow[i + 1] + along * (narrow[k + 1] - narrow[i + 1]);
    const blue = narrow[i + 2] + along * (narrow[k + 2] - narrow[i + 2]);
    const offset = narrow[i + 3] + along * (narrow[k + 3] - narrow[i + 3]);
    const at = 4 * to;
    const value = offset + (red * colors[at] + green * colors[at + 1] + blue * colors[at + 2]) / 255;
    refined[to] = value < low ? low : value > high ? high : value;
  }
}

/** Take thin spikes out of the mask, in place: postprocess.without_spikes. */
function withoutSpikes(refined, coarse) {
  const { width, height, data } = refined;
  const radius = Math.max(1, round(SPIKE * Math.max(width, height)));
  // Around the image lies what neither a minimum nor a maximum takes.
  const stride = width + 2 * radius;
  const values = new Float32Array(stride * (height + 2 * radius)).fill(Infinity);
  const eroded = new Float32Array(values.length).fill(-Infinity);
  for (let y = 0; y < height; y++) {
    const to = (y + radius) * stride + radius;
    values.set(data.subarray(y * width, (y + 1) * width), to);
    eroded.fill(UNKNOWN, to, to + width);
  }
  const steps = Int32Array.from(discOffsets(radius), ([u, v]) => v * stride + u);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0, at = (y + radius) * stride + radius; x < width; x++, i++, at++) {
      const value = values[at];
      if (value <= THRESHOLD || value <= coarse.data[i] + STILL) continue;
      const opened = openedAt(at, values, eroded, steps);
      if (opened < value) data[i] = Math.max(opened, coarse.data[i], THRESHOLD);
    }
  }
  return refined;
}

const UNKNOWN = 2; // no probability: the minimum around a pixel is computed where it is needed

/** The greatest of the least values around each pixel around `at`. */
function openedAt(at, values, eroded, steps) {
  let opened = -Infinity;
  for (let k = 0; k < steps.length; k++) {
    const near = at + steps[k];
    let least = eroded[near];
    if (least === UNKNOWN) {
      least = Infinity;
      for (let j = 0; j < steps.length; j++) {
        const value = values[near + steps[j]];
        if (value < least) least = value;
      }
      eroded[near] = least;
    }
    if (least > opened) opened = least;
  }
  return opened;
}

/** Columns and rows from the centre of OpenCV's elliptic structuring element to its pixels. */
function discOffsets(radius) {
  const offsets = [];
  for (let v = -radius; v <= radius; v++) {
    const reach = round(Math.sqrt(radius * radius - v * v));
    for (let u = -reach; u <= reach; u++) offsets.push([u, v]);
  }
  return offsets;
}

/** Remove small regions and fill small holes, in place: postprocess.without_specks. */
function withoutSpecks(refined, coarse) {
  const { data } = refined;
  const above = THRESHOLD + 2 ** -24; // the next float32
  for (const [level, sign] of [[CLEAR, 1], [THRESHOLD, 1], [THRESHOLD, -1]]) {
    const exact = Math.fround(level);
    for (const region of smallRegions(refined, exact, sign, SPECK * data.length)) {
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
function smallRegions({ width, data }, level, sign, maxArea) {
  const runs = [];
  const parents = [];
  const rootOf = (run) => {
    while (parents[run] !== run) run = parents[run] = parents[parents[run]];
    return run;
  };
  let above = 0; // first run of the row above that may touch the next run
  let row = 0; // first run of this row
  for (let from = 0; from < data.length; from += width) {
    const to = from + width;
    [above, row] = [row, runs.length];
    for (let i = from; i < to; i++) {
      if (data[i] > level !== sign > 0) continue;
      const start = i;
      while (i < to && data[i] > level === sign > 0) i++;
      const run = runs.length;
      runs.push([start, i]);
      parents.push(run);
      while (above < row && runs[above][1] < start - width) above++;
      for (let k = above; k < row && runs[k][0] <= i - width; k++) parents[rootOf(k)] = rootOf(run);
    }
  }
  const areas = new Float64Array(runs.length);
  runs.forEach(([start, end], run) => { areas[rootOf(run)] += end - start; });
  const regions = new Map();
  runs.forEach((ends, run) => {
    const root = rootOf(run);
    if (areas[root] >= maxArea) return;
    if (!regions.has(root)) regions.set(root, []);
    regions.get(root).push(ends);
  });
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
      rowLow[i] = Math.min(left, data[i], right);
      rowHigh[i] = Math.max(left, data[i], right);
    }
  }
  for (let y = 0, i = 0; y < height; y++) {
    const [up, down] = [y ? width : 0, y < height - 1 ? width : 0];
    for (let x = 0; x < width; x++, i++) {
      low[i] = Math.min(rowLow[i - up], rowLow[i], rowLow[i + down]);
      high[i] = Math.max(rowHigh[i - up], rowHigh[i], rowHigh[i + down]);
    }
  }
  return [low, high];
}

/** The image shrunk, in whole numbers; large images are subsampled first, to save time. */
function smallGuide(image, [width, height]) {
  return roundAll(resize(limited(image, 4 * GUIDE_SIDE), width, height));
}

const MOMENTS = 13; // of `colorFit`: r g b p, rp gp bp, rr rg rb gg gb bb

/** Slopes of red, green and blue (0..1), and the offset: postprocess.color_fit. */
function colorFit(guide, { width, height, data }) {
  const moments = picture(width, height, MOMENTS);
  const values = moments.data;
  for (let i = 0; i < data.length; i++) {
    const r = guide.data[4 * i] / 255;
    const g = guide.data[4 * i + 1] / 255;
    const b = guide.data[4 * i + 2] / 255;
    const p = data[i];
    const to = MOMENTS * i;
    values[to] = r;
    values[to + 1] = g;
    values[to + 2] = b;
    values[to + 3] = p;
    values[to + 4] = r * p;
    values[to + 5] = g * p;
    values[to + 6] = b * p;
    values[to + 7] = r * r;
    values[to + 8] = r * g;
    values[to + 9] = r * b;
    values[to + 10] = g * g;
    values[to + 11] = g * b;
    values[to + 12] = b * b;
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
