// Strokes of a brush that mend a mask: where a stroke covers the photo, and what it does there.
//
// A stroke is { id, points, radius, softness, erase, follow }: points [[x, y], ...] and radius in the
// photo's pixels, softness 0..1. With `follow` a stroke stops at the photo's contours.

import { guidedUpsample, limitedSize, picture, resize } from "./pixels.js";

const PIECE = 2; // a stroke is computed in pieces of about this length, in radii
const MARGIN = 1.25; // of the photo around a piece, in radii
const GRID_SIDE = 112; // longer side of the piece at which distances are computed, cells
const CORE = 0.25; // around the path contours stop nothing, in radii
const NOISE = 0.02; // a difference of neighbouring colours, 0..1, that is no contour
const ROUGHNESS = 2; // nor is this many times the mean difference under the core
const STOP = 0.15; // contrast of a contour that stops the whole brush, 0..1
const NOWHERE = { left: 0, top: 0, width: 0, height: 0 };

/** Points of a stroke without those that are close to the last one. */
function thinned({ points, radius }) {
  const kept = [points[0]];
  for (const point of points) {
    const [x, y] = kept.at(-1);
    if (Math.hypot(point[0] - x, point[1] - y) >= radius / 6) kept.push(point);
  }
  const last = points.at(-1);
  if (kept.at(-1) !== last) kept.push(last);
  return kept;
}

/** Overlapping pieces of a path, each about PIECE radii long. */
function* pieces(points, radius) {
  let piece = [points[0]];
  let length = 0;
  for (let i = 1; i < points.length; i++) {
    piece.push(points[i]);
    length += Math.hypot(points[i][0] - points[i - 1][0], points[i][1] - points[i - 1][1]);
    if (length < PIECE * radius) continue;
    yield piece;
    [piece, length] = [[points[i]], 0];
  }
  if (piece.length > 1 || points.length === 1) yield piece;
}

/** The part of the image within `reach` of points: { left, top, width, height }, or null. */
function boxAround(points, reach, image) {
  const range = (axis, length) => {
    const values = points.map((point) => point[axis]);
    const start = Math.max(0, Math.floor(Math.min(...values) - reach));
    return [start, Math.min(length, Math.ceil(Math.max(...values) + reach)) - start];
  };
  const [left, width] = range(0, image.width);
  const [top, height] = range(1, image.height);
  return width > 0 && height > 0 ? { left, top, width, height } : null;
}

/** Distance of each pixel's centre from a path, in radii, where it is at most 1; else Infinity. */
function distances(path, radius, { left, top, width, height }, scale = 1) {
  const result = new Float32Array(width * height).fill(Infinity);
  for (let i = 0; i < path.length; i++) {
    const [ax, ay] = path[Math.max(0, i - 1)];
    const [dx, dy] = [path[i][0] - ax, path[i][1] - ay];
    const square = dx * dx + dy * dy;
    const columns = [Math.min(ax, ax + dx) - radius, Math.max(ax, ax + dx) + radius];
    const rows = [Math.min(ay, ay + dy) - radius, Math.max(ay, ay + dy) + radius];
    const [fromX, toX] = columns.map((x) => (x - left) * scale);
    const [fromY, toY] = rows.map((y) => (y - top) * scale);
    for (let y = Math.max(0, Math.floor(fromY)); y < Math.min(height, toY); y++) {
      const py = top + (y + 0.5) / scale - ay;
      for (let x = Math.max(0, Math.floor(fromX)); x < Math.min(width, toX); x++) {
        const px = left + (x + 0.5) / scale - ax;
        const along = square ? Math.min(1, Math.max(0, (px * dx + py * dy) / square)) : 0;
        const far = Math.hypot(px - along * dx, py - along * dy) / radius;
        if (far <= 1 && far < result[y * width + x]) result[y * width + x] = far;
      }
    }
  }
  return result;
}

/** Greatest difference of two cells' red, green and blue, 0..1. */
function contrast(data, i, k) {
  const red = Math.abs(data[4 * i] - data[4 * k]);
  const green = Math.abs(data[4 * i + 1] - data[4 * k + 1]);
  const blue = Math.abs(data[4 * i + 2] - data[4 * k + 2]);
  return Math.max(red, green, blue) / 255;
}

/**
 * Lengthen distances by the contours between a cell and the path: the shortest way counts.
 *
 * @param far distances from the path in radii, one per cell
 * @param step side of a cell, in radii
 */
function aroundContours(far, { width, height, data }, step) {
  const core = far.map((value) => value <= Math.max(CORE, step));
  let [sum, count] = [0, 0];
  for (let i = 1; i < far.length; i++) {
    if (!core[i] || !core[i - 1] || i % width === 0) continue;
    sum += contrast(data, i, i - 1);
    count++;
  }
  const free = Math.max(NOISE, count ? (ROUGHNESS * sum) / count : 0);
  const result = far.map((value, i) => (core[i] ? value : Infinity));
  const sweep = (first, last, by, neighbours) => {
    for (let y = first[1]; y !== last[1]; y += by) {
      for (let x = first[0]; x !== last[0]; x += by) {
        const i = y * width + x;
        if (far[i] > 1) continue;
        for (const [u, v] of neighbours) {
          if (x + u < 0 || x + u >= width || y + v < 0 || y + v >= height) continue;
          const k = i + v * width + u;
          if (result[k] >= result[i]) continue;
          const contour = Math.max(0, contrast(data, i, k) - free) / STOP;
          const length = result[k] + step * (u && v ? Math.SQRT2 : 1) + contour;
          if (length < result[i]) result[i] = length;
        }
      }
    }
  };
  for (let turn = 0; turn < 3; turn++) {
    sweep([0, 0], [width, height], 1, [[-1, 0], [-1, -1], [0, -1], [1, -1]]);
    sweep([width - 1, height - 1], [-1, -1], -1, [[1, 0], [1, 1], [0, 1], [-1, 1]]);
  }
  return result;
}

/** Opacity of a brush at a distance in radii: 1 inside, falling to 0 at the rim. */
function opacity(far, softness, radius) {
  const inner = Math.max(0, Math.min(1 - softness, 1 - 1 / radius)); // the rim is a pixel wide or wider
  if (far <= inner) return 1;
  if (far >= 1) return 0;
  const rest = (1 - far) / (1 - inner);
  return rest * rest * (3 - 2 * rest);
}

function crop(image, { left, top, width, height }) {
  const data = new Uint8ClampedArray(4 * width * height);
  for (let y = 0; y < height; y++) {
    const from = 4 * ((top + y) * image.width + left);
    data.set(image.data.subarray(from, from + 4 * width), 4 * y * width);
  }
  return picture(width, height, 4, data);
}

/** Opacities of one piece of a stroke in a box, one 0..1 per pixel. */
function pieceCover(image, box, path, { radius, softness, follow }) {
  const far = distances(path, radius, box);
  if (!follow) return far.map((value) => opacity(value, softness, radius));
  const part = crop(image, box);
  const guide = resize(part, ...limitedSize(part, GRID_SIDE));
  const { width, height } = guide;
  const scale = width / box.width;
  const coarse = distances(path, radius, { ...box, width, height }, scale);
  const ways = aroundContours(coarse, guide, 1 / (radius * scale));
  const values = ways.map((value) => opacity(value, softness, radius * scale));
  const refined = guidedUpsample(picture(width, height, 1, values), part).data;
  return refined.map((value, i) => (far[i] <= 1 ? value : 0));
}

/**
 * Where a stroke covers an image: { left, top, width, height, data }, data 0..255 one per pixel.
 */
export function coverOf(image, stroke) {
  const { radius } = stroke;
  const points = thinned(stroke);
  const whole = boxAround(points, radius + 1, image);
  if (!whole) return { ...NOWHERE, data: new Uint8Array() };
  const data = new Uint8Array(whole.width * whole.height);
  for (const path of pieces(points, radius)) {
    const box = boxAround(path, MARGIN * radius + 1, image);
    if (!box) continue;
    const cover = pieceCover(image, box, path, stroke);
    for (let y = 0; y < box.height; y++) {
      const row = box.top + y - whole.top;
      if (row < 0 || row >= whole.height) continue;
      for (let x = 0; x < box.width; x++) {
        const column = box.left + x - whole.left;
        if (column < 0 || column >= whole.width) continue;
        const value = Math.round(255 * cover[y * box.width + x]);
        const to = row * whole.width + column;
        if (value > data[to]) data[to] = value;
      }
    }
  }
  return { ...whole, data };
}

/** Paint a stroke's cover on a probability inside a box, in place. */
export function applyCover(probability, cover, erase, within = cover) {
  const left = Math.max(cover.left, within.left);
  const right = Math.min(cover.left + cover.width, within.left + within.width);
  const bottom = Math.min(cover.top + cover.height, within.top + within.height);
  for (let y = Math.max(cover.top, within.top); y < bottom; y++) {
    let from = (y - cover.top) * cover.width + left - cover.left;
    let to = y * probability.width + left;
    for (const end = to + Math.max(0, right - left); to < end; to++, from++) {
      const weight = cover.data[from] / 255;
      const wanted = erase ? 0 : 1;
      probability.data[to] += weight * (wanted - probability.data[to]);
    }
  }
}

/** The smallest box around the covers of strokes. */
function around(strokes) {
  const covers = strokes.map(({ cover }) => cover).filter(({ data }) => data.length);
  if (!covers.length) return NOWHERE;
  const [left, top] = [Math.min(...covers.map((box) => box.left)), Math.min(...covers.map((box) => box.top))];
  const right = Math.max(...covers.map((box) => box.left + box.width));
  const bottom = Math.max(...covers.map((box) => box.top + box.height));
  return { left, top, width: right - left, height: bottom - top };
}

/**
 * The strokes of one photo: `mend(strokes)` brings its probability to what these strokes make of the
 * network's, whichever were drawn before.
 */
export function makeMender(image, probability) {
  const found = probability.data.slice();
  let done = []; // { id, erase, cover }
  return (strokes) => {
    let same = 0;
    while (same < done.length && done[same].id === strokes[same]?.id) same++;
    const kept = done.slice(0, same);
    const gone = done.slice(same);
    const fresh = strokes.slice(same).map((stroke) => {
      const { id, erase } = stroke;
      return { id, erase, cover: coverOf(image, stroke) };
    });
    done = [...kept, ...fresh];
    const box = around(gone);
    for (let y = box.top; y < box.top + box.height; y++) {
      const from = y * image.width + box.left;
      probability.data.set(found.subarray(from, from + box.width), from);
    }
    for (const { cover, erase } of kept) applyCover(probability, cover, erase, box);
    for (const { cover, erase } of fresh) applyCover(probability, cover, erase);
  };
}
