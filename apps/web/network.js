// The networks, in a thread of their own, so that one frame of a camera is looked at while worker.js
// draws the one before. Only worker.js sends commands, as messages.js explains them.

import "./site.js";
import { meanAnswer } from "./effects.js";
import { answer, tell } from "./messages.js";
import { ofImageData, picture, toBatch } from "./pixels.js";
import { Problem } from "./strings.js";

const RUNTIME = new URL("./runtime/", import.meta.url).href;
const PROGRAMS = {
  wasm: { module: "ort.wasm.min.mjs", binary: "ort-wasm-simd-threaded.wasm" },
  webgpu: { module: "ort.jspi.min.mjs", binary: "ort-wasm-simd-threaded.jspi.wasm" },
};
const TOGETHER = { large: { full: 2, lite: 1 } }; // how often whose answers count beside its own: backends.py
const AGREED = 0.01; // mean difference of probabilities up to which a graphics card is trusted

let ort;
let providers; // what runs the networks: a backend, or several in the order of preference
const networks = {}; // "full" and, once wanted, "lite" and "large" -> { session, metadata }
const downloaded = {}; // "lite", "large" -> { model, metadata } before the session is made

const commands = { load, begin: prepareNetwork, run };
let turn = Promise.resolve();

self.onmessage = ({ data: { id, name, ...values } }) => {
  if (name === "download") answer(id, downloadLarge); // meanwhile the other commands go on
  else turn = turn.then(() => answer(id, () => commands[name](values)));
};

/** Fetch model and runtime; it tells which fraction is here. */
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
    tell(Math.min(1, expected.done / (expected.total || Infinity)));
  }
  const blob = new Blob(parts);
  const [first, second] = new Uint8Array(await blob.slice(0, 2).arrayBuffer());
  if (first !== 0x1f || second !== 0x8b) return blob.arrayBuffer(); // some hosts send it uncompressed
  return new Response(blob.stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

async function begin(model, metadata, binary, backend, threads) {
  ort = await import(RUNTIME + PROGRAMS[backend].module);
  if (!self.crossOriginIsolated) threads = 1;
  threads ??= Math.max(1, Math.min(4, navigator.hardwareConcurrency - 1)); // one is left for worker.js
  Object.assign(ort.env.wasm, { wasmPaths: RUNTIME, wasmBinary: binary, numThreads: threads });
  providers = [backend];
  networks.full = await makeNetwork(model, metadata);
  ort.env.wasm.wasmBinary = undefined; // compiled: its memory can be freed
  const test = testInput(metadata.size);
  const found = await answerOf(test, networks.full); // the first run is slow: do it now
  if (backend === "webgpu") await judge(model, metadata, test, found);
  return { backend, threads };
}

async function makeNetwork(model, metadata) {
  const session = await ort.InferenceSession.create(model, { executionProviders: providers });
  return { session, metadata };
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

/** Fetch the large network; it tells how far that is. */
async function downloadLarge() {
  expected = { total: 0, done: 0 };
  downloaded.large = await fetchNetwork("networks/large");
}

const together = (model) => [model, ...Object.keys(TOGETHER[model] ?? {})];

/** Make sure that a downloaded network, and those that answer with it, can run; its input's size. */
async function prepareNetwork({ model }) {
  for (const name of together(model)) {
    if (networks[name]) continue;
    networks[name] = await makeNetwork(downloaded[name].model, downloaded[name].metadata);
    delete downloaded[name];
  }
  return networks[model].metadata.size;
}

/** The probability of a network input, a picture of one channel 0..1, and its time in milliseconds. */
async function run({ networkInput, model }) {
  const start = performance.now();
  const answers = [];
  for (const name of together(model)) answers.push(await answerOf(networkInput, networks[name]));
  const probability = meanAnswer(answers, [1, ...Object.values(TOGETHER[model] ?? {})]);
  return { probability, network: performance.now() - start };
}

async function answerOf(networkInput, { session, metadata }) {
  const { input, output } = metadata;
  const { width, height } = networkInput;
  const batch = new ort.Tensor("float32", toBatch(networkInput, metadata), [1, 3, height, width]);
  const answer = await session.run({ [input]: batch });
  return picture(width, height, 1, await answer[output].getData());
}

