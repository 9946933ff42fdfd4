// Commands from the page to its worker, and from this one to another: { id, name, ...values } is
// answered by { id, result } or { id, error }; { progress } messages, 0..1, come meanwhile.

import { Problem } from "./strings.js";

/**
 * Start a worker.
 *
 * @param onProgress function of a fraction 0..1
 * @param onBroken is called when the worker cannot be started or has an error beside its commands
 * @returns function of (name, values, transfer) that sends a command: a promise of its result
 */
export function connect(address, onProgress, onBroken) {
  const worker = new Worker(new URL(address, import.meta.url), { type: "module" });
  const waiting = new Map();
  let last = 0;
  worker.onmessage = ({ data: { id, result, error, progress } }) => {
    if (progress !== undefined) return onProgress(progress);
    const { resolve, reject } = waiting.get(id);
    waiting.delete(id);
    if (error === undefined) resolve(result);
    else reject(error.key ? new Problem(error.key, error.values) : new Error(error.message));
  };
  worker.onerror = () => {
    onBroken();
    for (const { reject } of waiting.values()) reject(new Problem("no_worker"));
    waiting.clear();
  };
  return (name, values = {}, transfer = []) => {
    worker.postMessage({ id: ++last, name, ...values }, transfer);
    return new Promise((resolve, reject) => waiting.set(last, { resolve, reject }));
  };
}

/** In a worker: send the result of a command, a function, or its error. */
export async function answer(id, command) {
  try {
    const result = await command();
    const array = result?.pixels ?? result?.probability?.data;
    self.postMessage({ id, result }, array ? [array.buffer] : []);
  } catch (error) {
    const { key, values, message } = error;
    self.postMessage({ id, error: { key, values, message } });
  }
}

/** In a worker: tell how far a command is, 0..1. */
export const tell = (progress) => self.postMessage({ progress });
