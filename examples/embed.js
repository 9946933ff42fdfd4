// PortraitNet in your own page: weights/portraitnet.onnx, onnxruntime-web and this file.
//
//   import * as ort from 'onnxruntime-web';
//   import { cutOut } from './embed.js';
//   const session = await ort.InferenceSession.create('portraitnet.onnx');
//   document.body.append(await cutOut(ort, session, document.querySelector('img')));
//
// The short file has neither the second look, the refinement nor the clean colours of apps/web: small
// people may be missed, the mask's edges do not follow the photo's, and mixed pixels of hair keep the
// old background's colour.

const MEAN = [103.94, 116.78, 123.68]; // of B, G, R in 0..255
const SCALE = 0.017;

/** [height, width] of the network input: almost the photo's aspect ratio, about 224 x 224 pixels. */
export function inputShape(height, width) {
  let best = [Infinity];
  for (let h = 32; h < 449; h += 32) {
    for (let w = 32; w < 449; w += 32) {
      const stretch = Math.log(h / w) - Math.log(height / width);
      const misfit = Math.abs(stretch) + 0.25 * Math.abs(Math.log((h * w) / 224 ** 2));
      if (misfit < best[0]) best = [misfit, h, w];
    }
  }
  return best.slice(1);
}

/** An image, video or canvas -> { h, w, probability }; probability, 0..1, has h rows of w values. */
export async function predict(ort, session, image) {
  const height = image.naturalHeight || image.videoHeight || image.height;
  const width = image.naturalWidth || image.videoWidth || image.width;
  const [h, w] = inputShape(height, width);
  const context = new OffscreenCanvas(w, h).getContext('2d');
  context.imageSmoothingQuality = 'high';
  context.drawImage(image, 0, 0, w, h);
  const { data } = context.getImageData(0, 0, w, h); // red, green, blue, alpha
  const batch = new Float32Array(3 * h * w); // the planes B, G, R
  for (let i = 0; i < batch.length; i++) {
    const [c, pixel] = [Math.floor(i / (h * w)), i % (h * w)];
    batch[i] = (data[4 * pixel + 2 - c] - MEAN[c]) * SCALE;
  }
  const answer = await session.run({ batch: new ort.Tensor('float32', batch, [1, 3, h, w]) });
  return { h, w, height, width, probability: answer.probability.data };
}

/** Opacity of the person: 0 up to 0.33, 1 from 0.67 on, because the network is never certain. */
export const matte = (p) => Math.min(1, Math.max(0, (p - 0.33) / (0.67 - 0.33)));

/** An image, video or canvas -> a canvas with the person on a transparent background. */
export async function cutOut(ort, session, image) {
  const { h, w, height, width, probability } = await predict(ort, session, image);
  const mask = new ImageData(w, h);
  probability.forEach((p, i) => { mask.data[4 * i + 3] = 255 * matte(p); });
  const small = new OffscreenCanvas(w, h);
  small.getContext('2d').putImageData(mask, 0, 0);
  const canvas = Object.assign(document.createElement('canvas'), { width, height });
  const context = canvas.getContext('2d');
  context.drawImage(image, 0, 0);
  context.globalCompositeOperation = 'destination-in';
  context.drawImage(small, 0, 0, width, height);
  return canvas;
}
