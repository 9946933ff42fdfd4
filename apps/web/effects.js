// The effects, as in portraitnet/effects.py. Each effect takes `image`, a picture in RGBA, and
// `probability`, a picture of one channel 0..1 of the same size. Neither is changed; the result is a
// new RGBA Uint8ClampedArray. `small` is the image shrunk to the size at which colours are estimated
// and blurred.

import {
  boxMean,
  CLEAR,
  limitedSize,
  luma,
  neighbours,
  PIECE,
  PLACE,
  picture,
  regionsOf,
  resize,
  THRESHOLD,
  writePlaces,
} from "./pixels.js";
import { at, bytes, room, wasm } from "./wasm.js";

export const SOLID = 0.67; // a pixel is person from this probability on: portraitnet/postprocess.py
export const MIN_PERSON_AREA = 0.003; // of a person's region, as a fraction of the network input
export const MIN_PERSON_MEAN = 0.75; // mean probability of a person's region
export const LARGE_AREA = 0.1; // the largest region is kept from this area on if no region is sure
const OVERLAY_COLOR = [80, 200, 80];
const OVERLAY_STRENGTH = 0.4;
// Half the window sizes of the two colour estimates, as fractions of the longer side: effects.py.
const FAR = 0.09;
const NEAR = 0.006;
const PURITY = 4;
const BLUR_SIGMA = 6; // a wide blur is computed on an image shrunk until sigma is this, pixels

/** Opacity of the person, 0..1: effects.matte. */
export const matte = (value) => Math.min(1, Math.max(0, (value - CLEAR) / (SOLID - CLEAR)));

/**
 * The mean of several networks' answers, as logits, in place of the first: backends.mean_answer.
 *
 * @param counts how often each answer counts
 */
export function meanAnswer(answers, counts = answers.map(() => 1)) {
  const [first, ...others] = answers;
  if (!others.length) return first;
  const all = counts.reduce((sum, count) => sum + count);
  const logit = (value) => {
    const sure = Math.min(1 - 1e-4, Math.max(1e-4, value));
    return Math.log(sure / (1 - sure));
  };
  first.data.forEach((value, i) => {
    const sum = others.reduce((total, { data }, k) => total + counts[k + 1] * logit(data[i]), counts[0] * logit(value));
    first.data[i] = 1 / (1 + Math.exp(-sum / all));
  });
  return first;
}

/** Remove regions too small or too unsure to be a person: postprocess.drop_doubtful. */
export function dropDoubtful({ width, height, data }) {
  const result = picture(width, height, 1, data.slice());
  const unsure = []; // regions that may be no person
  let found = false;
  let largest = { area: 0 };
  for (const runs of regionsOf({ width, data }, Math.fround(CLEAR), 1)) {
    let area = 0;
    let sum = 0;
    for (const [start, end] of runs) {
      for (let i = start; i < end; i++) {
        if (data[i] <= THRESHOLD) continue;
        area += 1;
        sum += data[i];
      }
    }
    const person = area >= MIN_PERSON_AREA * data.length && sum >= MIN_PERSON_MEAN * area;
    found ||= person;
    if (person) continue;
    unsure.push(runs);
    if (area > largest.area) largest = { area, runs };
  }
  if (!found && largest.area < LARGE_AREA * data.length) {
    result.data.fill(0);
    return result;
  }
  for (const runs of unsure) {
    if (!found && runs === largest.runs) continue;
    for (const [start, end] of runs) result.data.fill(0, start, end);
  }
  return result;
}

/** The largest region over THRESHOLD, as a fraction of the picture: postprocess.largest_region. */
export function largestRegion(probability) {
  let largest = 0;
  for (const runs of regionsOf(probability, THRESHOLD, 1)) {
    const area = runs.reduce((sum, [start, end]) => sum + end - start, 0);
    largest = Math.max(largest, area);
  }
  return largest / probability.data.length;
}

/** Opacity at the size of `small`, 0..1. */
function smallMatte(probability, { width, height }) {
  return resize(probability, width, height).data.map(matte);
}

/** result = other + alpha * (result - other), in place, for one pixel. */
function blend(result, to, alpha, red, green, blue) {
  result[to] = red + alpha * (result[to] - red);
  result[to + 1] = green + alpha * (result[to + 1] - green);
  result[to + 2] = blue + alpha * (result[to + 2] - blue);
}

/** White where the probability exceeds THRESHOLD. */
export function mask(image, probability) {
  const result = new Uint8ClampedArray(image.data.length);
  for (let i = 0, to = 0; to < result.length; i++, to += 4) {
    result[to] = result[to + 1] = result[to + 2] = probability.data[i] > THRESHOLD ? 255 : 0;
    result[to + 3] = 255;
  }
  return result;
}

/** The person tinted and outlined. */
export function overlay(image, probability) {
  const [red, green, blue] = OVERLAY_COLOR;
  const inside = picture(image.width, image.height, 1);
  for (let i = 0; i < inside.data.length; i++) inside.data[i] = probability.data[i] > THRESHOLD ? 1 : 0;
  const radius = Math.max(1, Math.round(Math.max(image.width, image.height) / 600));
  const fraction = boxMean(inside, radius).data; // one half on the contour
  const result = new Uint8ClampedArray(image.data);
  for (let i = 0, to = 0; to < result.length; i++, to += 4) {
    const line = Math.min(1, 2 * (1 - Math.abs(2 * fraction[i] - 1)));
    const weight = Math.max(OVERLAY_STRENGTH * probability.data[i], line);
    if (weight > 0) blend(result, to, 1 - weight, red, green, blue);
  }
  return result;
}

/** The same memory as one integer per pixel; red is the lowest byte. */
const asIntegers = ({ buffer, byteOffset, length }) => new Uint32Array(buffer, byteOffset, length / 4);

/** The person in its own colours on a transparent background. */
export function cutOut(image, probability, { small }) {
  const result = personColors(image, probability, small);
  const pixels = asIntegers(result);
  const { data } = probability;
  for (let i = 0; i < data.length; i++) {
    if (data[i] <= CLEAR) pixels[i] = 0;
    else if (data[i] < SOLID) result[4 * i + 3] = 255 * matte(data[i]);
  }
  return result;
}

/** The person in front of `background`: [red, green, blue], or RGBA pixels of the image's size. */
export function replace(image, probability, { background, small }) {
  const { width, height } = image;
  if (background.length > 3) return personColors(image, probability, small, picture(width, height, 4, background));
  const row = Uint8ClampedArray.from({ length: 4 * width }, (_, i) => background[i % 4] ?? 255);
  return personColors(image, probability, small, picture(width, 1, 4, row));
}

/**
 * The sharp person in front of a blurred background, without the person's colours in the blur.
 *
 * @param options.blur sigma as a fraction of the image's longer side
 */
export function blur(image, probability, { blur: strength, small }) {
  const tiny = resize(small, ...limitedSize(small, BLUR_SIGMA / strength));
  const sigma = strength * Math.max(tiny.width, tiny.height);
  const weights = smallMatte(probability, tiny).map((value) => 1 - value);
  // Three box means approximate a Gaussian; a box mean of radius r has the variance r (r + 1) / 3.
  const radius = Math.max(1, Math.round(Math.sqrt(sigma * sigma + 0.25) - 0.5));
  const smooth = (plane) => boxMean(boxMean(boxMean(plane, radius), radius), radius);
  return personColors(image, probability, small, weightedMean(tiny, weights, smooth));
}

/** The person in colour in front of a grey background. */
export function grey(image, probability) {
  const result = new Uint8ClampedArray(image.data);
  const values = luma(image).data;
  const pixels = asIntegers(result);
  const { data } = probability;
  for (let i = 0; i < data.length; i++) {
    if (data[i] <= CLEAR) pixels[i] = 0xff000000 | (values[i] * 0x10101);
    else if (data[i] < SOLID) blend(result, 4 * i, matte(data[i]), values[i], values[i], values[i]);
  }
  return result;
}

export const EFFECTS = { overlay, mask, cutout: cutOut, replace, blur, grey }; // as in effects.py

/** Weighted mean of RGBA colours in the window of `smooth`; one weight per pixel. */
function weightedMean(colors, weights, smooth) {
  const { width, height, data } = colors;
  const [values, factors] = room(data.length, weights.length);
  values.set(data);
  factors.set(weights);
  wasm.weigh(at(values), at(factors), weights.length);
  const result = smooth(picture(width, height, 4, values.slice()));
  for (let to = 0; to < data.length; to += 4) {
    const inverse = 1 / result.data[to + 3];
    result.data[to] *= inverse;
    result.data[to + 1] *= inverse;
    result.data[to + 2] *= inverse;
  }
  return result;
}

// A table, because powers are slow.
const PURE = Float32Array.from({ length: 256 }, (_, value) => (value / 255) ** PURITY);
const pure = (alpha) => PURE[Math.round(255 * alpha)];

/**
 * The person's own colours in pixels that mix person and background: effects.person_colors.
 *
 * @param scene null, or the picture to put behind the person: of the image's size, or one row of its
 *   width for all rows, or smaller, and it is stretched
 * @returns RGBA Uint8ClampedArray, equal to the image in unmixed pixels of the person
 */
export function personColors(image, probability, small, scene = null) {
  const alpha = smallMatte(probability, small);
  const near = alpha.map(pure);
  const distant = alpha.map((value) => pure(1 - value));
  let person = small;
  let behind = small;
  let guess;
  for (const fraction of [FAR, NEAR]) {
    const radius = Math.max(1, Math.round(fraction * Math.max(small.width, small.height)));
    const mean = (plane) => boxMean(plane, radius);
    guess = weightedMean(person, near, mean);
    behind = weightedMean(behind, distant, mean);
    person = unmixed(small, alpha, guess, behind);
  }

  const { width, height } = image;
  const length = small.data.length;
  const lines = Math.min(height, Math.max(1, Math.floor(PIECE / (4 * width)))); // of a piece
  const area = lines * width;
  const isWide = scene?.width === width && [1, height].includes(scene.height);
  const [pixels, values, back, own, other, columns, rows, far, farColumns, farRows] = room(
    area, area, width, length, length, PLACE * width, PLACE * lines,
    isWide ? 0 : (scene?.data.length ?? 0), PLACE * width, PLACE * height,
  );
  own.set(guess.data);
  other.set(behind.data);
  writePlaces(columns, neighbours(small.width, width));
  if (scene && !isWide) {
    far.set(scene.data);
    writePlaces(farColumns, neighbours(scene.width, width));
    writePlaces(farRows, neighbours(scene.height, height));
  }
  const { first, second, fraction } = neighbours(small.height, height);
  const result = new Uint8ClampedArray(image.data.length);
  for (let y = 0; y < height; y += lines) {
    const end = Math.min(height, y + lines);
    const [from, to] = [y * width, end * width];
    bytes(pixels).set(image.data.subarray(4 * from, 4 * to));
    values.set(probability.data.subarray(from, to));
    const [above, below, down] = [first, second, fraction].map((each) => each.subarray(y, end));
    writePlaces(rows, { first: above, second: below, fraction: down });
    wasm.own_colors(
      at(pixels), at(values), width, end - y, CLEAR, SOLID, at(own), at(other), small.width, at(columns), at(rows),
    );
    if (scene) {
      for (let line = y; line < end; line++) {
        if (isWide) {
          const from = 4 * width * (line % scene.height);
          if (line === y || scene.height > 1) bytes(back).set(scene.data.subarray(from, from + 4 * width));
        } else {
          const place = at(farRows) + 4 * PLACE * line;
          wasm.stretch_row(at(far), scene.width, at(farColumns), place, width, at(back));
        }
        const start = 4 * (line - y) * width; // pixels and probabilities have four bytes each
        wasm.in_front(at(pixels) + start, at(values) + start, at(back), width, CLEAR, SOLID);
      }
    }
    result.set(bytes(pixels).subarray(0, 4 * (to - from)), 4 * from);
  }
  return result;
}

/** The person's colours in a mixture, from a guess of them and the colours behind. */
function unmixed({ width, height, data }, alpha, guess, behind) {
  const [mixed, opacity, person, other] = room(data.length, alpha.length, data.length, data.length);
  mixed.set(data);
  opacity.set(alpha);
  person.set(guess.data);
  other.set(behind.data);
  wasm.unmix(at(mixed), at(opacity), at(person), at(other), alpha.length);
  return picture(width, height, 4, person.slice());
}
