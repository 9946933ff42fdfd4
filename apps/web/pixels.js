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

/** A picture shrunk to at most `side` pixels on its longer side, opaque: geometry.limited. */
function limited(source, side) {
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

const buffers = {};

/** A reused buffer for intermediate values: to get fresh memory takes longer than to fill it. */
function scratch(name, length) {
  if (!(buffers[name]?.length >= length)) buffers[name] = new Float32Array(length);
  return buffers[name].subarray(0, length);
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

/** Yields the rows of a picture stretched to (width, height), all in one reused array. */
export function* stretchedRows(source, width, height) {
  const write = stretcher(source, width, height);
  const row = new Float32Array(width * source.channels);
  for (let y = 0; y < height; y++) {
    write(y, row, 0);
    yield row;
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
  const passed = scratch("passed", data.length);
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
  const { width, height } = small;
  const odds = squaredOdds(interpolate(probability, width, height));
  const planes = { fit: colorFit(small, odds).data, ...extremes(odds), odds: odds.data };
  const { refined, coarse, raised } = applyFit(small, planes, applied, appliedWidth, appliedHeight);
  withoutSpikes(refined, coarse, raised);
  withoutSpecks(refined, coarse);
  return interpolate(refined, image.width, image.height, result);
}

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
 * The fit applied to the colours of `image` shrunk to (width, height).
 *
 * @param planes at the size of `guide`: `fit`, 3 slopes and the offset, and the `odds` with their
 *   least and greatest values around, `low` and `high`
 * @returns `refined`, the probability with the fit, and `coarse`, without, pictures of one channel;
 *   `raised`, the indices of the pixels that the fit has put above THRESHOLD or further above it
 */
function applyFit(guide, { fit, low, high, odds }, image, width, height) {
  const reused = (name) => picture(width, height, 1, scratch(name, width * height));
  const [refined, coarse] = [reused("refined"), reused("coarse")];
  const raised = [];
  const cells = cellsOf(neighbours(guide.width, width), width);
  const rows = neighbours(guide.height, height);
  const writeColors = colorsOf(image, width, height);
  const colors = new Uint8Array(4 * width);
  const length = guide.width;
  const [lows, highs, middle] = [0, 1, 2].map(() => new Float32Array(length)); // of this row
  const [left, right] = [new Float32Array(6), new Float32Array(6)]; // fit, low and high of a cell
  for (let y = 0; y < height; y++) {
    const above = rows.first[y] * length;
    const below = rows.second[y] * length;
    const down = rows.fraction[y];
    const lower = 4 * (below - above);
    for (let i = 0, a = above, b = below; i < length; i++, a++, b++) {
      lows[i] = low[a] + down * (low[b] - low[a]);
      highs[i] = high[a] + down * (high[b] - high[a]);
      middle[i] = odds[a] + down * (odds[b] - odds[a]);
    }
    for (let cell = 0; cell < cells.starts.length; cell++) {
      const [from, to] = [cells.starts[cell], cells.ends[cell]];
      const [i, k] = [cells.first[cell], cells.second[cell]];
      applyCoarse(middle[i], middle[k], cells.fraction, from, to, refined.data, coarse.data, y * width);
      if (highs[i] - lows[i] < STILL && highs[k] - lows[k] < STILL) continue;
      for (let c = 0; c < 4; c++) {
        const [a, b] = [4 * (above + i) + c, 4 * (above + k) + c];
        left[c] = fit[a] + down * (fit[a + lower] - fit[a]);
        right[c] = fit[b] + down * (fit[b + lower] - fit[b]);
      }
      left[4] = lows[i];
      left[5] = highs[i];
      right[4] = lows[k];
      right[5] = highs[k];
      writeColors(y, from, to, colors, 0);
      applyCell(left, right, cells.fraction, from, to, colors, refined.data, raised, y * width);
    }
  }
  return { refined, coarse, raised };
}

/** The neighbours of `neighbours` as cells: the pixels `starts` to `ends` have the same two. */
function cellsOf({ first, second, fraction }, width) {
  const starts = [...first.keys()].filter((x) => !x || first[x] !== first[x - 1]);
  const at = (neighbour) => starts.map((x) => neighbour[x]);
  return { starts, ends: [...starts.slice(1), width], first: at(first), second: at(second), fraction };
}

function applyCoarse(left, right, fraction, from, to, refined, coarse, row) {
  const step = right - left;
  for (let x = from; x < to; x++) refined[row + x] = coarse[row + x] = left + fraction[x] * step;
}

function applyCell(left, right, fraction, from, to, colors, refined, raised, row) {
  const red = left[0];
  const green = left[1];
  const blue = left[2];
  const offset = left[3];
  const low = left[4];
  const high = left[5];
  const redStep = right[0] - red;
  const greenStep = right[1] - green;
  const blueStep = right[2] - blue;
  const offsetStep = right[3] - offset;
  const lowStep = right[4] - low;
  const highStep = right[5] - high;
  for (let x = from, at = 0; x < to; x++, at += 4) {
    const along = fraction[x];
    const sum =
      (red + along * redStep) * colors[at] +
      (green + along * greenStep) * colors[at + 1] +
      (blue + along * blueStep) * colors[at + 2];
    const fitted = offset + along * offsetStep + sum / 255;
    const min = low + along * lowStep;
    const max = high + along * highStep;
    const value = fitted < min ? min : fitted > max ? max : fitted;
    if (value > THRESHOLD && value > refined[row + x] + STILL) raised.push(row + x);
    refined[row + x] = value;
  }
}

/** Take thin spikes out of the mask, in place: postprocess.without_spikes. */
function withoutSpikes(refined, coarse, raised) {
  const { width, height, data } = refined;
  const radius = Math.max(1, round(SPIKE * Math.max(width, height)));
  const disc = discOffsets(radius);
  const eroded = scratch("eroded", data.length).fill(UNKNOWN);
  // All are computed before one is changed.
  const opened = new Float32Array(raised.length);
  for (let i = 0; i < raised.length; i++) opened[i] = openedAt(raised[i], refined, eroded, disc);
  for (let i = 0; i < raised.length; i++) {
    const at = raised[i];
    if (opened[i] < data[at]) data[at] = Math.max(opened[i], coarse.data[at], THRESHOLD);
  }
}

const UNKNOWN = 2; // no probability: the minimum around a pixel is computed where it is needed

/** The greatest of the least values around each pixel around `at`, inside the picture. */
function openedAt(at, picture, eroded, disc) {
  const { width, height } = picture;
  const x = at % width;
  const y = (at - x) / width;
  let opened = -Infinity;
  for (let k = 0; k < disc.length; k += 2) {
    const u = x + disc[k];
    const v = y + disc[k + 1];
    if (u < 0 || v < 0 || u >= width || v >= height) continue;
    const near = v * width + u;
    if (eroded[near] === UNKNOWN) eroded[near] = minAround(u, v, picture, disc);
    if (eroded[near] > opened) opened = eroded[near];
  }
  return opened;
}

function minAround(x, y, { width, height, data }, disc) {
  let min = Infinity;
  for (let k = 0; k < disc.length; k += 2) {
    const u = x + disc[k];
    const v = y + disc[k + 1];
    if (u < 0 || v < 0 || u >= width || v >= height) continue;
    if (data[v * width + u] < min) min = data[v * width + u];
  }
  return min;
}

/** Column and row, in turn, from the centre of OpenCV's elliptic structuring element to its pixels. */
function discOffsets(radius) {
  const offsets = [];
  for (let v = -radius; v <= radius; v++) {
    const reach = round(Math.sqrt(radius * radius - v * v));
    for (let u = -reach; u <= reach; u++) offsets.push(u, v);
  }
  return Int32Array.from(offsets);
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
  const { starts, ends, parents } = runsOf(data.length);
  const inside = sign > 0;
  let count = 0; // of the runs
  let above = 0; // first run of the row above that may touch the next run
  let row = 0; // first run of this row
  for (let from = 0; from < data.length; from += width) {
    const to = from + width;
    [above, row] = [row, count];
    for (let i = from; i < to; i++) {
      // Two loops for each side: one that compares with `inside` takes twice as long.
      if (inside) while (i < to && data[i] <= level) i++;
      else while (i < to && data[i] > level) i++;
      if (i === to) break;
      const start = i;
      if (inside) while (i < to && data[i] > level) i++;
      else while (i < to && data[i] <= level) i++;
      [starts[count], ends[count], parents[count]] = [start, i, count];
      while (above < row && ends[above] < start - width) above++;
      for (let k = above; k < row && starts[k] <= i - width; k++) {
        parents[rootOf(parents, k)] = rootOf(parents, count);
      }
      count++;
    }
  }
  const areas = new Float64Array(count);
  for (let run = 0; run < count; run++) areas[rootOf(parents, run)] += ends[run] - starts[run];
  const regions = new Map();
  for (let run = 0; run < count; run++) {
    const root = rootOf(parents, run);
    if (areas[root] >= maxArea) continue;
    if (!regions.has(root)) regions.set(root, []);
    regions.get(root).push([starts[run], ends[run]]);
  }
  return regions.values();
}

function rootOf(parents, run) {
  while (parents[run] !== run) run = parents[run] = parents[parents[run]];
  return run;
}

let runs = { pixels: 0 };

/** Reused buffers for all runs of a picture of so many pixels: at most every second one starts one. */
function runsOf(pixels) {
  if (runs.pixels < pixels) {
    const [starts, ends, parents] = [0, 1, 2].map(() => new Int32Array(pixels));
    runs = { pixels, starts, ends, parents };
  }
  return runs;
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
