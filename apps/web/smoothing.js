// What a camera adds to the masks of its frames: smoothing.py's rule, without its optical flow.

import { boxMean, luma, zip } from "./pixels.js";

export const FLOOR = 0.1; // these five: smoothing.py
export const NOISE = 2;
export const CHANGED = 8;
export const DOUBT = 0.25;
export const MOVED = 0.75;

const ramp = (value, low, high) => Math.min(1, Math.max(0, (value - low) / (high - low)));

/**
 * Mixes each frame's probability with the previous result, which counts for 1 - FLOOR, but less
 * where the frame or the mask has changed: so that nothing trails behind a movement.
 *
 * @returns function of (frame, probability), pictures of equal size, RGBA and one channel
 */
export function smoother() {
  let lastLuma = null;
  let last = null;
  return (frame, probability) => {
    const gray = boxMean(luma(frame), 1);
    if (last && last.width === gray.width && last.height === gray.height) {
      const change = boxMean(zip((a, b) => Math.abs(a - b), gray, lastLuma), 2);
      const difference = boxMean(zip((a, b) => a - b, probability, last), 2);
      const weight = zip(
        (c, d) => Math.max(ramp(c, NOISE, CHANGED), ramp(Math.abs(d), DOUBT, MOVED)),
        change,
        difference,
      );
      probability = zip(
        (now, before, w) => before + (FLOOR + (1 - FLOOR) * w) * (now - before),
        probability,
        last,
        weight,
      );
    }
    lastLuma = gray;
    last = probability;
    return probability;
  };
}
