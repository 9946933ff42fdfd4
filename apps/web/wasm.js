// pixels.c in WebAssembly: `wasm` has its functions, `room` gives them arrays.

import { PROGRAM } from "./program.js";

const program = Uint8Array.from(atob(PROGRAM), (letter) => letter.charCodeAt(0));
export const wasm = new WebAssembly.Instance(new WebAssembly.Module(program)).exports;

const LINE = 16; // arrays begin at multiples of a vector's size, bytes
const PAGE = 65536; // WebAssembly's memory grows by this

/** Arrays of so many float32 in the program's memory. The next call gives the memory to others. */
export function room(...lengths) {
  const starts = [Math.ceil(wasm.__heap_base.value / LINE) * LINE];
  for (const length of lengths) starts.push(starts.at(-1) + Math.ceil((4 * length) / LINE) * LINE);
  const missing = starts.at(-1) - wasm.memory.buffer.byteLength;
  if (missing > 0) wasm.memory.grow(Math.ceil(missing / PAGE));
  return lengths.map((length, i) => new Float32Array(wasm.memory.buffer, starts[i], length));
}

/** The address of an array. */
export const at = (array) => array.byteOffset;

/** The same memory as whole numbers, or as bytes. */
export const indices = ({ buffer, byteOffset, length }) => new Int32Array(buffer, byteOffset, length);
export const bytes = ({ buffer, byteOffset, byteLength }) => new Uint8ClampedArray(buffer, byteOffset, byteLength);
