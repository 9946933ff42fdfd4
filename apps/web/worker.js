// Everything heavy, away from the page: the network, and what is made of its answer.
// The page sends { id, name, ...values } and gets { id, result } or { id, error } back, in order.

import { BACKGROUNDS } from "./backgrounds.js";
import { dropDoubtful, EFFECTS, THRESHOLD } from "./effects.js";
import {
  guidedUpsample,
  limited,
  ofImageData,
  picture,
  prepare,
  resize,
  toBatch,
} from "./pixels.js";
import { smoother } from "./smoothing.js";

const RUNTIME = new URL("./runtime/", import.meta.url).href;
const IMAGE_COLOR_SIDE = 1024; // at which colours are estimated: effects.py
const CAMERA_COLOR_SIDE = 160; // less, for the sake of frames per second
const LITE_SIZE = 160; // of a frame's view, for the same reason: "lite" of backends.py

let ort, session, metadata;
let opened = null; // { image, probability, small }
let own = null; // the visitor's background, a bitmap
let background = null; // { name, image }: the one that was wanted last, at the size it was wanted
let smooth = null;

const commands = { load, open, draw, background: openBackground, start, frame };
let turn = Promise.resolve();

self.onmessage = ({ data: { id, name, ...values } }) => {
  turn = turn.then(async () => {
    try {
      const result = await commands[name](values);
      self.postMessage({ id, result }, result?.pixels ? [result.pixels.buffer] : []);
    } catch (error) {
      self.postMessage({ id, error: error.message });
    }
  });
};

/** Fetch model and runtime; `progress` messages tell how far the model has come, 0..1. */
async function load({ threads, backend }) {
  const [response, description] = await Promise.all([fetch("model.onnx"), fetch("model.json")]);
  if (!response.ok || !description.ok) throw new Error("The server does not give the model.");
  metadata = await description.json();
  const model = await readAll(response);
  if (backend === "webgpu" || (backend !== "wasm" && (await hasGraphicsCard()))) {
    try {
      return await begin(model, "webgpu", threads);
    } catch (error) {
      if (backend === "webgpu") throw error;
      console.warn("WebGPU failed, the processor takes over:", error);
    }
  }
  return begin(model, "wasm", threads);
}

async function hasGraphicsCard() {
  const adapter = await navigator.gpu?.requestAdapter();
  return Boolean(adapter) && !(adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter);
}

async function readAll(response) {
  const total = Number(response.headers.get("Content-Length"));
  const parts = [];
  let done = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { value } = await reader.read();
    if (!value) return new Uint8Array(await new Blob(parts).arrayBuffer());
    parts.push(value);
    done += value.length;
    self.postMessage({ progress: total ? done / total : 0 });
  }
}

async function begin(model, backend, threads) {
  ort = await import(`${RUNTIME}ort.${backend}.min.mjs`);
  ort.env.wasm.wasmPaths = RUNTIME;
  if (!self.crossOriginIsolated) threads = 1;
  threads ??= Math.min(4, navigator.hardwareConcurrency);
  ort.env.wasm.numThreads = threads;
  session = await ort.InferenceSession.create(model, { executionProviders: [backend] });
  await run(picture(metadata.size, metadata.size, 4)); // the first run is slow: have it now
  return { backend, threads };
}

/** A view -> picture of one channel of its size, 0..1: the probability. */
async function run(view) {
  const { input, output } = metadata;
  const { width, height } = view;
  const batch = new ort.Tensor("float32", toBatch(view, metadata), [1, 3, height, width]);
  const answer = await session.run({ [input]: batch });
  return picture(width, height, 1, await answer[output].getData());
}

const shrink = (image, side) => resize(image, ...limited(image, side));

/** Where the person is in an image, its view, and the milliseconds that the network took. */
async function segment(image, size, smoothed = (_, probability) => probability) {
  const view = prepare(image, { size });
  const start = performance.now();
  const answer = await run(view);
  const network = performance.now() - start;
  const probability = guidedUpsample(dropDoubtful(smoothed(view, answer)), image);
  return { probability, view, network };
}

let canvas = null;

/** What `draw` puts on a white canvas of this size. */
function read(width, height, draw) {
  canvas ??= new OffscreenCanvas(width, height);
  if (canvas.width !== width || canvas.height !== height) {
    Object.assign(canvas, { width, height });
  }
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  draw(context);
  return ofImageData(context.getImageData(0, 0, width, height));
}

async function open({ bitmap }) {
  const { width, height } = bitmap;
  const start = performance.now();
  let image;
  try {
    image = read(width, height, (context) => context.drawImage(bitmap, 0, 0));
  } catch {
    throw new Error(`A photo of ${width} × ${height} is too large for this browser.`);
  } finally {
    bitmap.close();
  }
  const { probability, network } = await segment(image, metadata.size);
  opened = { image, probability, small: shrink(image, IMAGE_COLOR_SIDE) };
  let person = 0;
  for (const value of probability.data) person += value > THRESHOLD;
  return { share: person / (width * height), width, height, network, total: performance.now() - start };
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

/** RGBA values of a background of this name, of the image's size. */
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

/** The opened image with an effect: { pixels, width, height }. */
function draw({ look }) {
  return paint(opened, look);
}

/** A camera begins: no mask of an earlier one counts. */
function start() {
  smooth = smoother();
}

/** One frame of the camera with an effect, and the milliseconds that network and all took. */
async function frame({ bitmap, mirror, look }) {
  const { width, height } = bitmap;
  const start = performance.now();
  const image = read(width, height, (context) => {
    if (mirror) context.setTransform(-1, 0, 0, 1, width, 0);
    context.drawImage(bitmap, 0, 0);
  });
  bitmap.close();
  const size = Math.min(LITE_SIZE, metadata.size);
  const { probability, view, network } = await segment(image, size, smooth);
  const small = shrink(view, CAMERA_COLOR_SIDE);
  return { ...paint({ image, probability, small }, look), network, total: performance.now() - start };
}
