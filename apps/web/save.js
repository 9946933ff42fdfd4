// Saving the result: as a downloaded file, or on the clipboard.

import { Problem } from "./strings.js";

/** Encode a canvas at full size; JPEG has no transparency and gets a white background. */
export async function encode(canvas, type, quality = 0.92) {
  if (type === "image/jpeg") {
    const opaque = new OffscreenCanvas(canvas.width, canvas.height);
    const context = opaque.getContext("2d");
    context.fillStyle = "white";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(canvas, 0, 0);
    canvas = opaque;
  }
  const blob = canvas.convertToBlob
    ? await canvas.convertToBlob({ type, quality })
    : await new Promise((resolve) => canvas.toBlob(resolve, type, quality));
  if (blob?.type === type) return blob;
  throw new Problem("cannot_write", { format: type.split("/")[1] });
}

const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

/** Checksum of a PNG chunk. Source: PNG specification, annex D. */
function checksum(bytes) {
  let crc = ~0;
  for (const byte of bytes) crc = CRC[(crc ^ byte) & 255] ^ (crc >>> 8);
  return ~crc;
}

/** Write the resolution into a PNG or JPEG, so that it prints at its size; other types stay. */
export async function withResolution(blob, dpi) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  const values = new DataView(bytes.buffer);
  if (blob.type === "image/jpeg" && values.getUint32(6) === 0x4a464946) { // "JFIF"
    values.setUint8(13, 1); // pixels per inch
    values.setUint16(14, dpi);
    values.setUint16(16, dpi);
    return new Blob([bytes], { type: blob.type });
  }
  if (blob.type !== "image/png") return blob;
  const chunk = new DataView(new ArrayBuffer(21));
  chunk.setUint32(0, 9); // length of the data
  chunk.setUint32(4, 0x70485973); // "pHYs"
  for (const at of [8, 12]) chunk.setUint32(at, Math.round(dpi / 0.0254));
  chunk.setUint8(16, 1); // pixels per metre
  chunk.setUint32(17, checksum(new Uint8Array(chunk.buffer, 4, 13)));
  const start = 33; // after the signature and the first chunk, IHDR
  return new Blob([bytes.subarray(0, start), chunk, bytes.subarray(start)], { type: blob.type });
}

export function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Copy a canvas to the clipboard as PNG, the only type that all browsers accept. */
export function copy(canvas) {
  const type = "image/png";
  return navigator.clipboard.write([new ClipboardItem({ [type]: encode(canvas, type) })]);
}
