// The pictures, in a thread of their own: postprocessing and effects; network.js has the networks.
// The page sends commands, as messages.js explains them.

import { BACKGROUNDS } from "./backgrounds.js";
import { makeMender } from "./brush.js";
import { dropDoubtful, EFFECTS, largestRegion, meanAnswer } from "./effects.js";
import { measure } from "./frames.js";
import { matting } from "./matting.js";
import { answer, connect, tell } from "./messages.js";
import {
  guidedUpsample,
  inputShape,
  limitedSize,
  ofImageData,
  picture,
  prepare,
  resize,
  THRESHOLD,
} from "./pixels.js";
import { makeSmoother } from "./smoothing.js";
import { Problem } from "./strings.js";

const IMAGE_COLOR_SIDE = 1024; // longer side at which colours are estimated, pixels: effects.py
const CAMERA_COLOR_SIDE = 96; // the same for a camera: smaller, to be faster

// A photo whose largest region is under SMALL is looked at closer: predictor.py.
const SMALL = 0.15;
const CLOSER = 1.7;
const HAIR_SIZE = 384; // input size at which hair is looked at, beside the first look: predictor.py
const network = connect("network.js", tell, () => {});
const sizes = {}; // of the inputs of the networks that can run
let opened = null; // { photo, image, model, small, answer, fast, hair }; the last two { probability, mend }
let own = null; // the visitor's background, a bitmap
let background = null; // { name, image }: the last background, at the size of its image
let smooth = null;
let reused = null; // the probability of the last camera frame: its memory serves the next one

const commands = { load, begin, open, draw, background: openBackground, start, frame };
let begun = Promise.resolve(); // the last command that is no frame has ended
let ended = begun; // every command has

self.onmessage = ({ data: { id, name, ...values } }) => {
  if (name === "download") return answer(id, () => network("download")); // the other commands go on
  // Frames overlap: one is drawn while the network looks at the next. The others wait for all before.
  const done = (name === "frame" ? begun : ended).then(() => answer(id, () => commands[name](values)));
  ended = Promise.all([ended, done]);
  if (name !== "frame") begun = ended;
};

/** Fetch the networks that a page needs; returns what runs them: { backend, threads }. */
async function load(values) {
  const found = await network("load", values);
  await begin({ model: "full" });
  return found;
}

/** Make sure that a network that has been fetched can run. */
async function begin({ model }) {
  sizes[model] ??= await network("begin", { model });
}

const shrink = (image, side) => resize(image, ...limitedSize(image, side));

/** The network input of a size, its probability, and the network's time in milliseconds. */
async function see(image, size, model) {
  const networkInput = prepare(image, { size });
  return { networkInput, ...(await network("run", { networkInput, model })) };
}

/** As `see`, at the network's own size; small people are looked at closer: Predictor.run. */
async function find(image, model, lookCloser = true) {
  const first = await see(image, sizes[model], model);
  if (!lookCloser || largestRegion(dropDoubtful(first.probability)) >= SMALL) return first;
  const closer = await see(image, CLOSER * sizes[model], model);
  const { width, height, data } = closer.probability;
  const seen = resize(first.probability, width, height).data;
  for (let i = 0; i < data.length; i++) data[i] = Math.max(data[i], seen[i]);
  return { ...closer, network: first.network + closer.network };
}

/**
 * What hair is solved from: the mean of a first probability and of one from a larger input, as
 * logits. Predictor.look_at_hair.
 */
async function lookAtHair(image, first, model) {
  const [width, height] = inputShape(image, sizes[model]);
  if (first.width !== width || first.height !== height) return first; // `find` took a second look
  const { probability } = await see(image, HAIR_SIZE, model);
  return meanAnswer([probability, resize(first, probability.width, probability.height)]);
}

const canvases = {}; // one for "image", one for "input", because a change of size costs time

/** Pixels of a white canvas of this size on which `draw` has drawn. */
function read(width, height, draw, name = "image") {
  const canvas = (canvases[name] ??= new OffscreenCanvas(width, height));
  if (canvas.width !== width || canvas.height !== height) {
    Object.assign(canvas, { width, height });
  }
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.imageSmoothingEnabled = true;
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  draw(context);
  return ofImageData(context.getImageData(0, 0, width, height));
}

/** Find the person in a photo, which gets the name `photo`. */
async function open({ bitmap, model, photo }) {
  await begin({ model });
  const { width, height } = bitmap;
  const start = performance.now();
  let image;
  try {
    image = read(width, height, (context) => context.drawImage(bitmap, 0, 0));
  } catch {
    throw new Problem("too_large", { width, height });
  } finally {
    bitmap.close();
  }
  const { probability: answer, network: spent } = await find(image, model);
  const probability = guidedUpsample(dropDoubtful(answer), image);
  opened = { photo, image, model, answer, small: shrink(image, IMAGE_COLOR_SIDE), fast: { probability } };
  const personFraction = fractionAbove(probability, THRESHOLD);
  return { personFraction, width, height, network: spent, total: performance.now() - start };
}

function fractionAbove({ data }, level) {
  let count = 0;
  for (let i = 0; i < data.length; i++) if (data[i] > level) count++;
  return count / data.length;
}

function openBackground({ bitmap }) {
  own?.close();
  own = bitmap;
  background = null;
}

/** The visitor's background, scaled until it covers (width, height). */
function drawOwn(context, width, height) {
  const ratio = Math.max(width / own.width, height / own.height);
  const [w, h] = [own.width * ratio, own.height * ratio];
  context.imageSmoothingQuality = "high";
  context.drawImage(own, (width - w) / 2, (height - h) / 2, w, h);
}

/** RGBA pixels of the background with this name, at the image's size. */
function backgroundOf(name, { width, height }) {
  const { image } = background ?? {};
  if (background?.name !== name || image.width !== width || image.height !== height) {
    const draw = name === "own" ? drawOwn : BACKGROUNDS[name];
    background = { name, image: read(width, height, (context) => draw(context, width, height)) };
  }
  return background.image.data;
}

function paint({ image, probability, small }, { mode, ...options }) {
  if (mode === "replace" && typeof options.background === "string") {
    options.background = backgroundOf(options.background, image);
  }
  const pixels = EFFECTS[mode](image, probability, { ...options, small });
  return { pixels, width: image.width, height: image.height };
}

/**
 * The opened image with an effect, its mask mended by strokes (brush.js): { pixels, width, height,
 * personFraction, person }, the last as frames.measure returns it. null if another photo is open.
 * With `look.hair` the opacity is solved hair by hair, once for a photo.
 */
async function draw({ photo, look, strokes }) {
  if (opened.photo !== photo) return null;
  const { image, model, small, answer } = opened;
  if (look.hair && !opened.hair) {
    const seen = dropDoubtful(await lookAtHair(image, answer, model));
    opened.hair = { probability: matting(image, seen) };
  }
  const found = look.hair ? opened.hair : opened.fast;
  const { probability } = found;
  if (strokes.length) found.mend ??= makeMender(image, probability);
  found.mend?.(strokes);
  const personFraction = fractionAbove(probability, THRESHOLD);
  return { ...paint({ image, probability, small }, look), personFraction, person: measure(probability, THRESHOLD) };
}

/** A camera or a video starts: forget the masks of an earlier one. */
function start() {
  smooth = makeSmoother();
}

/** Pixels of a frame, mirrored if wanted. */
async function pixelsOf(bitmap, { width, height }, mirror) {
  const { x, y, width: w, height: h } = bitmap.visibleRect ?? {};
  if (w !== width || h !== height || bitmap.rotation) {
    return read(width, height, (context) => {
      if (mirror) context.setTransform(-1, 0, 0, 1, width, 0);
      context.drawImage(bitmap, 0, 0, width, height);
    });
  }
  // A VideoFrame whose pixels are the picture's: to copy them takes a fifth of the time of drawing.
  const data = new Uint8ClampedArray(4 * width * height);
  await bitmap.copyTo(data, { format: "RGBA", rect: { x, y, width, height } });
  if (mirror) {
    const pixels = new Uint32Array(data.buffer);
    for (let from = 0; from < pixels.length; from += width) pixels.subarray(from, from + width).reverse();
  }
  return picture(width, height, 4, data);
}

let drawn = Promise.resolve(); // the last frame: the next one's mask is mixed with its mask

/**
 * One frame of a camera or a video with an effect; `network` and `total` are times in milliseconds.
 *
 * @param values.bitmap ImageBitmap or VideoFrame
 * @param values.lookCloser whether small people are looked at closer, as in photos; a camera has no time
 */
function frame(values) {
  const before = drawn.catch(() => {}); // a frame that fails does not stop the next one
  drawn = drawFrame(values, before);
  return drawn;
}

async function drawFrame({ bitmap, mirror, look, lookCloser, model }, before) {
  await begin({ model });
  const start = performance.now();
  const size = { width: bitmap.displayWidth ?? bitmap.width, height: bitmap.displayHeight ?? bitmap.height };
  const image = await pixelsOf(bitmap, size, mirror);
  bitmap.close();
  const { networkInput, probability: answer, network: spent } = await find(image, model, lookCloser);
  await before;
  const smoothed = smooth(networkInput, answer);
  if (reused?.width !== image.width || reused.height !== image.height) {
    reused = picture(image.width, image.height, 1);
  }
  const probability = guidedUpsample(dropDoubtful(smoothed), image, networkInput, reused);
  const small = shrink(networkInput, CAMERA_COLOR_SIDE);
  return { ...paint({ image, probability, small }, look), network: spent, total: performance.now() - start };
}
