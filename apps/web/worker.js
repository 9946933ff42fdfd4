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
  viewShape,
} from "./pixels.js";
import { smoother } from "./smoothing.js";

const RUNTIME = new URL("./runtime/", import.meta.url).href;
const PROGRAMS = {
  wasm: { module: "ort.wasm.min.mjs", binary: "ort-wasm-simd-threaded.wasm" },
  webgpu: { module: "ort.jspi.min.mjs", binary: "ort-wasm-simd-threaded.jspi.wasm" },
};
const IMAGE_COLOR_SIDE = 1024; // at which colours are estimated: effects.py
const CAMERA_COLOR_SIDE = 96; // less, for the sake of frames per second
const LITE_SIZE = 160; // of the views of "lite", as in backends.py

let ort, session, metadata;
let sizes; // of a view: a network's name, "full" or "lite" -> size
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

/** Fetch model and runtime; `progress` messages tell how much of them has come, 0..1. */
async function load({ threads, backend: wanted }) {
  const backend = wanted ?? ((await hasGraphicsCard()) ? "webgpu" : "wasm");
  if (!PROGRAMS[backend]) throw new Error(`there is no backend ${backend}: give wasm or webgpu.`);
  const [description, model, binary] = await Promise.all([
    fetchFile("model.json"),
    fetchPacked("model.onnx"),
    fetchPacked(RUNTIME + PROGRAMS[backend].binary),
  ]);
  metadata = await description.json();
  sizes = { full: metadata.size, lite: Math.min(LITE_SIZE, metadata.size) };
  try {
    return await begin(model, binary, backend, threads);
  } catch (error) {
    if (backend === "wasm" || wanted) throw error;
    console.warn("WebGPU failed, the processor takes over:", error);
  }
  return begin(model, await fetchPacked(RUNTIME + PROGRAMS.wasm.binary), "wasm", threads);
}

async function hasGraphicsCard() {
  if (!WebAssembly.Suspending) return false; // which the runtime needs to wait for the card
  const adapter = await navigator.gpu?.requestAdapter();
  return Boolean(adapter) && !(adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter);
}

async function fetchFile(address) {
  const response = await fetch(address);
  if (!response.ok) throw new Error(`The server does not give ${address}.`);
  return response;
}

const expected = { total: 0, done: 0 }; // bytes of packed files

/** A large file, unpacked; the server has it in gzip, under the same name with .gz. */
async function fetchPacked(address) {
  const response = await fetchFile(`${address}.gz`);
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
  if (first !== 0x1f || second !== 0x8b) return blob.arrayBuffer(); // some hosts have it unpacked
  return new Response(blob.stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

async function begin(model, binary, backend, threads) {
  ort = await import(RUNTIME + PROGRAMS[backend].module);
  if (!self.crossOriginIsolated) threads = 1;
  threads ??= Math.min(4, navigator.hardwareConcurrency);
  Object.assign(ort.env.wasm, { wasmPaths: RUNTIME, wasmBinary: binary, numThreads: threads });
  session = await ort.InferenceSession.create(model, { executionProviders: [backend] });
  ort.env.wasm.wasmBinary = undefined; // it is compiled: its memory may go
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

/** The probability of a view, and the milliseconds that the network took. */
async function timed(view) {
  const start = performance.now();
  return { answer: await run(view), network: performance.now() - start };
}

const canvases = {}; // "image" and "view" have each their own: a change of size costs time

/** What `draw` puts on a white canvas of this size. */
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

async function open({ bitmap, model }) {
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
  const { answer, network } = await timed(prepare(image, { size: sizes[model] }));
  const probability = guidedUpsample(dropDoubtful(answer), image);
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
async function frame({ bitmap, mirror, look, model }) {
  const start = performance.now();
  const draw = (context) => {
    const { width, height } = context.canvas;
    if (mirror) context.setTransform(-1, 0, 0, 1, width, 0);
    context.imageSmoothingEnabled = width !== bitmap.width; // a mirrored draw is faster without
    context.imageSmoothingQuality = "medium"; // means, as in `prepare`
    context.drawImage(bitmap, 0, 0, width, height);
  };
  const image = read(bitmap.width, bitmap.height, draw);
  // The browser shrinks ten times as fast as `prepare`; their values differ by one in the mean.
  const view = read(...viewShape(bitmap, sizes[model]), draw, "view");
  bitmap.close();
  const { answer, network } = await timed(view);
  const probability = guidedUpsample(dropDoubtful(smooth(view, answer)), image, view);
  const small = shrink(view, CAMERA_COLOR_SIDE);
  return { ...paint({ image, probability, small }, look), network, total: performance.now() - start };
}
