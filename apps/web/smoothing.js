// Temporal smoothing of a camera's masks: as apps/video/smoothing.py, without the optical flow.

import { boxMean, luma, picture } from "./pixels.js";

export const FLOOR = 0.1; // these five: apps/video/smoothing.py
export const NOISE = 2;
export const CHANGED = 8;
export const DOUBT = 0.25;
export const MOVED = 0.75;

const ramp = (value, low, high) => Math.min(1, Math.max(0, (value - low) / (high - low)));

/**
 * Mixes each frame's probability with the previous result. The previous result has the weight
 * 1 - FLOOR, and less where the frame or the mask has changed: so a moving person leaves no trail.
 *
 * @returns function of (networkInput, probability), pictures of equal size, RGBA and one channel 0..1
 */
export function makeSmoother() {
  let lastLuma = null;
  let last = null;
  return (networkInput, probability) => {
    const grey = boxMean(luma(networkInput), 1);
    if (last && last.width === grey.width && last.height === grey.height) {
      const changes = picture(grey.width, grey.height, 2); // of luma and of probability
      for (let i = 0; i < last.data.length; i++) {
        changes.data[2 * i] = Math.abs(grey.data[i] - lastLuma.data[i]);
        changes.data[2 * i + 1] = probability.data[i] - last.data[i];
      }
      const around = boxMean(changes, 2).data;
      const mixed = picture(grey.width, grey.height, 1);
      for (let i = 0; i < last.data.length; i++) {
        const change = ramp(around[2 * i], NOISE, CHANGED);
        const move = ramp(Math.abs(around[2 * i + 1]), DOUBT, MOVED);
        const weight = FLOOR + (1 - FLOOR) * Math.max(change, move);
        mixed.data[i] = last.data[i] + weight * changes.data[2 * i + 1];
      }
      probability = mixed;
    }
    lastLuma = grey;
    last = probability;
    return probability;
  };
}
