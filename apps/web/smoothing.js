// Temporal smoothing of a camera's or a video's masks: as apps/video/smoothing.py, without the optical flow.

import { boxMean, luma, picture, resize } from "./pixels.js";

export const FLOOR = 0.1; // these five: apps/video/smoothing.py
export const NOISE = 2;
export const CHANGED = 8;
export const DOUBT = 0.25;
export const MOVED = 0.75;

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
    if (last) {
      // The last frame may have had another number of looks.
      [lastLuma, last] = [lastLuma, last].map((plane) => resize(plane, grey.width, grey.height));
      const changes = changesOf(grey, lastLuma, probability, last);
      const mixed = picture(grey.width, grey.height, 1);
      mix(last.data, changes.data, boxMean(changes, 2).data, mixed.data);
      probability = mixed;
    }
    lastLuma = grey;
    last = probability;
    return probability;
  };
}

// These loops are functions of their own: in a closure they take several times as long.

/** Changes of luma and of probability, a picture of two channels. */
function changesOf(grey, lastGrey, probability, last) {
  const result = picture(grey.width, grey.height, 2);
  const { data } = result;
  const [luma, lastLuma, values, lastValues] = [grey.data, lastGrey.data, probability.data, last.data];
  for (let i = 0; i < luma.length; i++) {
    data[2 * i] = Math.abs(luma[i] - lastLuma[i]);
    data[2 * i + 1] = values[i] - lastValues[i];
  }
  return result;
}

function mix(last, changes, around, result) {
  for (let i = 0; i < last.length; i++) {
    const change = (around[2 * i] - NOISE) / (CHANGED - NOISE);
    const move = (Math.abs(around[2 * i + 1]) - DOUBT) / (MOVED - DOUBT);
    const most = change > move ? change : move;
    const weight = most <= 0 ? FLOOR : most >= 1 ? 1 : FLOOR + (1 - FLOOR) * most;
    result[i] = last[i] + weight * changes[2 * i + 1];
  }
}
