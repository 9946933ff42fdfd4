// The heavy work, in a thread of its own: network, postprocessing and effects.
// The page sends { id, name, ...values } and receives { id, result } or { id, error }, in order.

import "./site.js";
import { BACKGROUNDS } from "./backgrounds.js";
import { makeMender } from "./brush.js";
import { dropDoubtful, EFFECTS, largestRegion, meanAnswer } from "./effects.js";
import { measure } from "./frames.js";
import { matting } from "./matting.js";
import {
  guidedUpsample,
  inputShape,
  limitedSize,
  ofImageData,
  picture,
  prepare,
  resize,
  THRESHOLD,
  toBatch,
} from "./pixels.js";
import { makeSmoother } from "./smoothing.js";
import { Problem } from "./strings.js";

const RUNTIME = new URL("./runtime/", import.meta.url).href;
const PROGRAMS = {
  wasm: { module: "ort.wasm.min.mjs", binary: "ort-wasm-simd-threaded.wasm" },
  webgpu: { module: "ort.jspi.min.mjs", binary: "ort-wasm-simd-threaded.jspi.wasm" },
};
const IMAGE_COLOR_SIDE = 1024; // longer side at which colours are estimated, pixels: effects.py
const CAMERA_COLOR_SIDE = 96; // the same for a camera: smaller, to be faster

// A photo whose largest region is under SMALL is looked at closer: predictor.py.
const SMALL = 0.15;
const CLOSER = 1.7;
const HAIR_SIZE = 384; // input size at which hair is looked at, beside the first look: predictor.py
const TOGETHER = { large: ["full", "lite"] }; // whose answers are averaged with a network's own: backends.py
const AGREED = 0.01; // mean difference of probabilities up to which a graphics card is trusted

let ort;
let providers; // what runs the networks: a backend, or several in the order of preference
const networks = {}; // "full" and, once wanted, "lite" and "large" -> { session, metadata, size }
const downloaded = {}; // "lite", "large" -> { model, metadata } before the session is made
let opened = null; // { photo, image, model, small, answer, fast, hair }; the last two { probability, mend }
let own = null; // the visitor's background, a bitmap
let background = null; // { name, image }: the last background, at the size of its image
let smooth = null;
let reused = null; // the probability of the last camera frame: its memory serves the next one

const commands = { load, open, draw, background: openBackground, start, frame, begin: prepareNetwork };
let turn = Promise.resolve();

self.onmessage = ({ data: { id, name, ...values } }) => {
  if (name === "download") answer(id, downloadLarge); // meanwhile the other commands go on
  else turn = turn.then(() => answer(id, () => commands[name](values)));
};

async function answer(id, command) {
  try {
    const result = await command();
    self.postMessage({ id, result }, result?.pixels ? [result.pixels.buffer] : []);
  } catch (error) {
    const { key, values, message } = error;
    self.postMessage({ id, error: { key, values, message } });
  }
}

/** Fetch model and runtime; `progress` messages report the received fraction, 0..1. */
async function load({ threads, backend: wanted }) {
  const backend = wanted ?? ((await hasGraphicsCard()) ? "webgpu" : "wasm");
  if (!PROGRAMS[backend]) throw new Problem("no_backend", { name: backend });
  const [{ model, metadata }, lite, binary] = await Promise.all([
    fetchNetwork("networks/full"),
    fetchNetwork("networks/lite"),
    fetchPacked(RUNTIME + PROGRAMS[backend].binary),
  ]);
  downloaded.lite = lite;
  try {
    return await begin(model, metadata, binary, backend, threads);
  } catch (error) {
    if (backend === "wasm" || wanted) throw error;
    console.warn("WebGPU failed, the processor is used instead:", error);
  }
  return begin(model, metadata, await fetchPacked(RUNTIME + PROGRAMS.wasm.binary), "wasm", threads);
}

async function fetchNetwork(address) {
  const [description, model] = await Promise.all([
    fetchFile(`${address}.json`),
    fetchPacked(`${address}.onnx`),
  ]);
  return { model, metadata: await description.json() };
}

async function hasGraphicsCard() {
  if (!WebAssembly.Suspending) return false; // the runtime needs this to wait for the GPU
  const adapter = await navigator.gpu?.requestAdapter();
  return Boolean(adapter) && !(adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter);
}

async function fetchFile(address) {
  const response = await fetch(address);
  if (!response.ok) throw new Problem("not_sent", { address });
  return response;
}

/** Put a large file where sw.js keeps it, so that it is not sent twice. */
async function keep(address, response) {
  const cache = await self.caches?.open(`page ${self.SITE.version}`);
  await cache?.put(address, response);
}

let expected = { total: 0, done: 0 }; // bytes of compressed files

/** Fetch a large file; the server has it compressed by gzip, under the same name with .gz. */
async function fetchPacked(address) {
  const response = await fetchFile(`${address}.gz`);
  keep(`${address}.gz`, response.clone()).catch(() => {}); // a private window may refuse
  expected.total += Number(response.headers.get("Content-Length"));
  const parts = [];
  for (const reader = response.body.getReader(); ; ) {
    const { value } = await reader.read();
    if (!value) break;
    parts.push(value);
    expected.done += value.length;
    self.postMessage({ progress: Math.min(1, expected.done / (expected.total || Infinity)) });
  }
  const blob = new Blob(parts);
  const [first, second] = new Uint8Array(await blob.slice(0, 2).arrayBuffer());
  if (first !== 0x1f || second !== 0x8b) return blob.arrayBuffer(); // some hosts send it uncompressed
  return new Response(blob.stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

async function begin(model, metadata, binary, backend, threads) {
  ort = await import(RUNTIME + PROGRAMS[backend].module);
  if (!self.crossOriginIsolated) threads = 1;
  threads ??= Math.min(4, navigator.hardwareConcurrency);
  Object.assign(ort.env.wasm, { wasmPaths: RUNTIME, wasmBinary: binary, numThreads: threads });
  providers = [backend];
  networks.full = await makeNetwork(model, metadata);
  ort.env.wasm.wasmBinary = undefined; // compiled: its memory can be freed
  const test = testInput(networks.full.size);
  const found = await run(test, "full"); // the first run is slow: do it now
  if (backend === "webgpu") await judge(model, metadata, test, found);
  return { backend, threads };
}

async function makeNetwork(model, metadata) {
  const session = await ort.InferenceSession.create(model, { executionProviders: providers });
  return { session, metadata, size: metadata.size };
}

/** A head and shoulders, plain: enough for the network to see a person. */
function testInput(size) {
  const canvas = new OffscreenCanvas(size, size);
  const context = canvas.getContext("2d");
  const fill = (color, draw) => {
    context.fillStyle = color;
    context.beginPath();
    draw();
    context.fill();
  };
  fill("rgb(150 165 175)", () => context.rect(0, 0, size, size));
  fill("rgb(45 60 95)", () => context.ellipse(size / 2, size, size * 0.36, size * 0.36, 0, 0, 7));
  fill("rgb(205 160 135)", () => context.ellipse(size / 2, size * 0.42, size * 0.16, size * 0.21, 0, 0, 7));
  return ofImageData(context.getImageData(0, 0, size, size));
}

/** A graphics card that computes something else than the processor is not used. */
async function judge(model, metadata, test, found) {
  const options = { executionProviders: ["wasm"] };
  const session = await ort.InferenceSession.create(model, options);
  const expected = await answerOf(test, { session, metadata });
  await session.release();
  let sum = 0;
  for (let i = 0; i < found.data.length; i++) sum += Math.abs(found.data[i] - expected.data[i]);
  const difference = sum / found.data.length;
  if (!(difference < AGREED)) throw new Error(`difference ${difference}`); // or NaN
}

/** Fetch the large network; `progress` messages as in `load`. */
async function downloadLarge() {
  expected = { total: 0, done: 0 };
  downloaded.large = await fetchNetwork("networks/large");
}

const together = (model) => [model, ...(TOGETHER[model] ?? [])];

/** Make sure that a downloaded network, and those that answer with it, can run. */
async function prepareNetwork({ model }) {
  for (const name of together(model)) {
    if (networks[name]) continue;
    networks[name] = await makeNetwork(downloaded[name].model, downloaded[name].metadata);
    delete downloaded[name];
  }
}

/** The probability of a network input: a picture of one channel, 0..1, of the same size. */
async function run(networkInput, model) {
  const answers = [];
  for (const name of together(model)) answers.push(await answerOf(networkInput, networks[name]));
  return meanAnswer(answers);
}

async function answerOf(networkInput, { session, metadata }) {
  const { input, output } = metadata;
  const { width, height } = networkInput;
  const batch = new ort.Tensor("float32", toBatch(networkInput, metadata), [1, 3, height, width]);
  const answer = await session.run({ [input]: batch });
  return picture(width, height, 1, await answer[output].getData());
}

const shrink = (image, side) => resize(image, ...limitedSize(image, side));

/** A network input, its probability, and the network's time in milliseconds. */
async function timed(networkInput, model) {
  const start = performance.now();
  const probability = await run(networkInput, model);
  return { networkInput, probability, network: performance.now() - start };
}

/** As `timed`, of a picture of any size; small people are looked at closer: Predictor.run. */
async function find(image, model, lookCloser = true) {
  const { size } = networks[model];
  const first = await timed(prepare(image, { size }), model);
  if (!lookCloser || largestRegion(dropDoubtful(first.probability)) >= SMALL) return first;
  const closer = await timed(prepare(image, { size: CLOSER * size }), model);
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
  const [width, height] = inputShape(image, networks[model].size);
  if (first.width !== width || first.height !== height) return first; // `find` took a second look
  const { probability } = await timed(prepare(image, { size: HAIR_SIZE }), model);
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
  await prepareNetwork({ model });
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
  const { probability: answer, network } = await find(image, model);
  const probability = guidedUpsample(dropDoubtful(answer), image);
  opened = { photo, image, model, answer, small: shrink(image, IMAGE_COLOR_SIDE), fast: { probability } };
  const personFraction = fractionAbove(probability, THRESHOLD);
  return { personFraction, width, height, network, total: performance.now() - start };
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

/**
 * One frame of a camera or a video with an effect; `network` and `total` are times in milliseconds.
 *
 * @param bitmap ImageBitmap or VideoFrame
 * @param lookCloser whether small people are looked at closer, as in photos; a camera has no time
 */
async function frame({ bitmap, mirror, look, lookCloser, model }) {
  await prepareNetwork({ model });
  const start = performance.now();
  const size = { width: bitmap.displayWidth ?? bitmap.width, height: bitmap.displayHeight ?? bitmap.height };
  const image = await pixelsOf(bitmap, size, mirror);
  bitmap.close();
  const { networkInput, probability: answer, network } = await find(image, model, lookCloser);
  const smoothed = smooth(networkInput, answer);
  if (reused?.width !== image.width || reused.height !== image.height) {
    reused = picture(image.width, image.height, 1);
  }
  const probability = guidedUpsample(dropDoubtful(smoothed), image, networkInput, reused);
  const small = shrink(networkInput, CAMERA_COLOR_SIDE);
  return { ...paint({ image, probability, small }, look), network, total: performance.now() - start };
}
