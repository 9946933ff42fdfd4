// Temporal smoothing of a camera's or a video's masks: as apps/video/smoothing.py, without the optical flow.

import { boxMean, luma, picture, resize } from "./pixels.js";
import { at, room, wasm } from "./wasm.js";

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
      const mixed = follow(last, changes, boxMean(changes, 2));
      probability = mixed;
    }
    lastLuma = grey;
    last = probability;
    return probability;
  };
}

/** Changes of luma and of probability, a picture of two channels. */
function changesOf(grey, lastGrey, probability, last) {
  const { width, height, data } = grey;
  const size = data.length;
  const [luma, lastLuma, values, lastValues, result] = room(size, size, size, size, 2 * size);
  luma.set(data);
  lastLuma.set(lastGrey.data);
  values.set(probability.data);
  lastValues.set(last.data);
  wasm.changes(at(luma), at(lastLuma), at(values), at(lastValues), size, at(result));
  return picture(width, height, 2, result.slice());
}

function follow({ width, height, data }, changes, around) {
  const size = data.length;
  const [last, changed, means, result] = room(size, 2 * size, 2 * size, size);
  last.set(data);
  changed.set(changes.data);
  means.set(around.data);
  wasm.follow(at(last), at(changed), at(means), size, FLOOR, NOISE, CHANGED, DOUBT, MOVED, at(result));
  return picture(width, height, 1, result.slice());
}
