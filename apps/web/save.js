// What the visitor takes along: a file in the downloads, or the clipboard.

/** The canvas as a file's content, at its full size; a JPEG knows no transparency and gets white. */
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
  throw new Error(`This browser cannot write ${type.split("/")[1]}: choose another format.`);
}

export function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Put the canvas on the clipboard, which takes PNG alone. */
export function copy(canvas) {
  const type = "image/png";
  return navigator.clipboard.write([new ClipboardItem({ [type]: encode(canvas, type) })]);
}
