// Saving the result: as a downloaded file, or on the clipboard.

import { Problem } from "./strings.js";

/** Encode the canvas at full size; JPEG has no transparency and gets a white background. */
export async function encode(canvas, type) {
  if (type === "image/jpeg") {
    const opaque = new OffscreenCanvas(canvas.width, canvas.height);
    const context = opaque.getContext("2d");
    context.fillStyle = "white";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(canvas, 0, 0);
    return opaque.convertToBlob({ type, quality: 0.92 });
  }
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, type, 0.92));
  if (blob?.type === type) return blob;
  throw new Problem("cannot_write", { format: type.split("/")[1] });
}

export function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Copy the canvas to the clipboard as PNG, the only type that all browsers accept. */
export function copy(canvas) {
  const type = "image/png";
  return navigator.clipboard.write([new ClipboardItem({ [type]: encode(canvas, type) })]);
}
