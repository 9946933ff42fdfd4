// Opacity hair by hair: the same steps as portraitnet/matting.py, which explains them.

import { matte, SOLID } from "./effects.js";
import {
  applyFit,
  boxMean,
  CLEAR,
  discReach,
  guidedUpsample,
  interpolate,
  limited,
  limitedSize,
  neighbours,
  picture,
  regionsOf,
  resize,
  round,
} from "./pixels.js";
import { at, bytes, indices, room, wasm } from "./wasm.js";

export const WORK_SIDE = 1280; // these sixteen: portraitnet/matting.py
export const SMOOTH_SIDE = 256;
export const PERSON = 0.8;
export const BACKGROUND = 0.3;
export const INSIDE = 0.0075;
export const OUTSIDE = 0.01;
export const MIXED = 0.1;
export const RIM = 0.004;
export const HAZE = 0.015;
export const WHOLE = 0.9;
export const MIN_WISP = 0.05;
export const CARRY_EPSILON = 1e-4;
export const TILE = 256;
export const EPSILON = 1e-5;
export const ITERATIONS = 200;
export const TOLERANCE = 2e-4;
const LAPLACIAN_ROW = 25; // coefficients of an unknown pixel in matting.c

/**
 * How opaque the person is, as a probability whose opacity in effects.js is just that.
 *
 * @param image picture, RGBA
 * @param answer picture of one channel, 0..1: the network's probability of the network input
 * @returns picture of one channel, of the image's size
 */
export function matting(image, answer) {
  const work = limited(image, WORK_SIDE);
  const { width, height } = work;
  const smooth = interpolate(resize(answer, ...limitedSize(answer, SMOOTH_SIDE)), width, height);
  const person = near(smooth, 0, PERSON, INSIDE, false);
  const known = knownFrom(person, near(smooth, BACKGROUND, 1, OUTSIDE, false));
  const half = [width, height].map((length) => Math.max(1, length >> 1));
  const first = solve(resize(work, ...half), nearest(known, work, ...half), resize(smooth, ...half));
  const coarse = interpolate(first, width, height);
  confine(known, near(coarse, MIXED, 1 - MIXED, RIM, true), coarse.data);
  const alpha = solve(work, known, coarse);
  withoutStrays(alpha, person, smooth);
  withoutHaze(alpha, () => guidedUpsample(answer, work));
  return asProbability(carry(alpha, work, image));
}

// These loops are functions of their own: `map` with a function takes ten times as long.

const UNKNOWN = 2; // the others: 0 background, 1 person

function knownFrom(person, background) {
  const result = new Uint8Array(person.length);
  for (let i = 0; i < result.length; i++) result[i] = person[i] ? 1 : background[i] ? 0 : UNKNOWN;
  return result;
}

/** Leave unknown only what lies in the band. */
function confine(known, band, coarse) {
  for (let i = 0; i < known.length; i++) {
    if (known[i] === UNKNOWN && !band[i]) known[i] = coarse[i] >= 0.5 ? 1 : 0;
  }
}

function asProbability(alpha) {
  const { data } = alpha;
  for (let i = 0; i < data.length; i++) data[i] = CLEAR + data[i] * (SOLID - CLEAR);
  return alpha;
}

/**
 * Whether a value from low to high lies within a disc around each pixel, as `yes` or its contrary.
 * The radius is a fraction of the longer side.
 */
function near({ width, height, data }, low, high, fraction, yes) {
  const radius = Math.max(1, round(fraction * Math.max(width, height)));
  const disc = discReach(radius);
  const [values, reach, far, result] = room(data.length, disc.length, data.length, data.length / 4);
  values.set(data);
  indices(reach).set(disc);
  wasm.near(at(values), width, height, low, high, radius, at(reach), yes, at(far), at(result));
  return bytes(result).slice(0, data.length);
}

/** A region in another size. */
function nearest(known, { width, height }, newWidth, newHeight) {
  const result = new Uint8Array(newWidth * newHeight);
  for (let y = 0, i = 0; y < newHeight; y++) {
    const row = Math.floor((y * height) / newHeight) * width;
    for (let x = 0; x < newWidth; x++, i++) result[i] = known[row + Math.floor((x * width) / newWidth)];
  }
  return result;
}

/** Opacities of what is unknown, from a guess of the same size: matting.closed_form. */
function solve({ width, height, data }, known, guess) {
  const result = picture(width, height, 1);
  const unknown = new Int32Array(known.length);
  let count = 0;
  for (let i = 0; i < known.length; i++) {
    result.data[i] = known[i] === UNKNOWN ? guess.data[i] : known[i];
    if (known[i] === UNKNOWN) unknown[count++] = i;
  }
  if (count === 0 || Math.min(width, height) < 3) return result;
  const margin = Math.ceil((2 * width + 2) / 4) * 4;
  const area = width * height;
  const [image, alpha, positions, index, coefficients, residual, product, scaled, direction] = room(
    area, area + 2 * margin, count, area, LAPLACIAN_ROW * count, count, count, count, area + 2 * margin,
  );
  bytes(image).set(data);
  alpha.fill(0);
  alpha.set(result.data, margin);
  indices(positions).set(unknown.subarray(0, count));
  const inside = (array) => at(array) + 4 * margin;
  wasm.closed_form(
    at(image), inside(alpha), width, height, count, at(positions), EPSILON, ITERATIONS, TOLERANCE, at(index),
    at(coefficients), at(residual), at(product), at(scaled), inside(direction),
  );
  result.data.set(alpha.subarray(margin, margin + area));
  return result;
}

/** Take out what hangs on no person, and close holes that the network denies, in place. */
function withoutStrays({ width, data }, person, smooth) {
  const wisps = data.slice();
  for (let i = 0; i < wisps.length; i++) if (person[i]) wisps[i] = 1;
  for (const runs of regionsOf({ width, data: wisps }, Math.fround(MIN_WISP), 1)) {
    const connected = runs.some(([start, end]) => person.subarray(start, end).includes(1));
    if (!connected) for (const [start, end] of runs) data.fill(0, start, end);
  }
  const believed = ([start, end]) => smooth.data.subarray(start, end).every((value) => value > 0.5);
  const open = ([start, end]) => data.subarray(start, end).some((value) => value < 0.5);
  for (const runs of regionsOf({ width, data }, Math.fround(WHOLE) - 2 ** -24, -1)) {
    if (runs.every(believed) && runs.some(open)) for (const [start, end] of runs) data.fill(1, start, end);
  }
}

/**
 * Take another opacity where a wide part is half transparent, in place: matting.haze.
 *
 * @param other function that gives the other probability, which most photos do not need
 */
function withoutHaze({ width, height, data }, other) {
  const fromHalf = picture(width, height, 1);
  for (let i = 0; i < data.length; i++) fromHalf.data[i] = Math.abs(data[i] - 0.5);
  const core = near(fromHalf, 0.5 - MIXED, 1, HAZE, false);
  if (!core.includes(1)) return;
  const wide = near(picture(width, height, 1, Float32Array.from(core)), 1, 1, HAZE, true);
  const radius = Math.max(1, round(HAZE * Math.max(width, height)));
  const weight = boxMean(picture(width, height, 1, Float32Array.from(wide)), (2 * radius + 1) >> 2).data;
  const solid = other();
  for (let i = 0; i < data.length; i++) {
    if (weight[i]) data[i] += weight[i] * (matte(solid.data[i]) - data[i]);
  }
}

/** Bring alpha to the photo's size so that its edges follow the photo's: matting.carry. */
function carry(alpha, work, image) {
  const result = interpolate(alpha, image.width, image.height);
  if (alpha.width === image.width && alpha.height === image.height) return result;
  const fit = { radius: 1, epsilon: CARRY_EPSILON, still: 0.02 };
  const [columns, rows] = [neighbours(alpha.width, image.width), neighbours(alpha.height, image.height)];
  for (let top = 0; top < image.height; top += TILE) {
    const [ys, above, high] = piece(rows, top, alpha.height);
    for (let left = 0; left < image.width; left += TILE) {
      const [xs, before, wide] = piece(columns, left, alpha.width);
      const part = cropped(alpha, before, above, wide, high);
      if (part.data.every((value) => value === part.data[0])) continue;
      const pixels = cropped(image, left, top, xs.first.length, ys.first.length);
      const { refined } = applyFit(cropped(work, before, above, wide, high), part, fit, pixels, [xs, ys]);
      for (let y = 0; y < refined.height; y++) {
        const row = refined.data.subarray(y * refined.width, (y + 1) * refined.width);
        result.data.set(row, (top + y) * image.width + left);
      }
    }
  }
  return result;
}

/** The places of TILE pixels in a part of the small picture: [places, its first pixel, its length]. */
function piece({ first, second, fraction }, start, length) {
  const end = start + TILE;
  const from = Math.max(0, first[start] - 3); // the fit there depends on so many around
  const [a, b] = [first.slice(start, end).map((i) => i - from), second.slice(start, end).map((i) => i - from)];
  const to = Math.min(length, from + b.at(-1) + 4);
  return [{ first: a, second: b, fraction: fraction.slice(start, end) }, from, to - from];
}

function cropped({ width, channels, data }, left, top, newWidth, newHeight) {
  const result = picture(newWidth, newHeight, channels, new data.constructor(newWidth * newHeight * channels));
  for (let y = 0; y < newHeight; y++) {
    const from = ((top + y) * width + left) * channels;
    result.data.set(data.subarray(from, from + newWidth * channels), y * newWidth * channels);
  }
  return result;
}
