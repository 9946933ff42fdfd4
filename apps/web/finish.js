// The finished picture of a photo: its frame, where the person and the background stand, shadow and
// outline. The worker makes the content at the photo's size; this module draws the rest.

import { compose, isUnmoved, matrixOf, UNMOVED } from "./compose.js";
import { fractionOf, showDrawn } from "./figure.js";
import { frameOf, FRAMES, guidesOf } from "./frames.js";
import { write } from "./language.js";
import { backdrop } from "./look.js";
import { $, chosen, source } from "./page.js";

const PREVIEW_SIDE = 1000; // longer side while something moves, pixels
const REST = 200; // milliseconds after the last movement until the picture is drawn in full
const MIN_SCALE = 0.25; // these two: of a moved layer
const MAX_SCALE = 4;
const CUT = ["cutout", "replace"]; // effects whose content is the person alone

/** `changed` is called when the finished picture has changed. */
export const finish = { changed() {} };
const content = document.createElement("canvas"); // what the worker has drawn
let person = null; // where the person is in it, as frames.measure returns it
let cut = true; // whether the content is the person alone
let photo = null; // the photo that it is of; its `place` is where the person was moved
let behind = UNMOVED; // where the visitor's own background was moved
let resting = 0; // timer

export const isCut = () => CUT.includes(chosen("mode"));

/** The effect that the worker draws: a new background is drawn here. */
export const contentMode = (mode) => (mode === "replace" ? "cutout" : mode);

/** Take over what the worker has drawn of a photo. */
export function setContent(next, { pixels, width, height, person: found }) {
  Object.assign(content, { width, height });
  content.getContext("2d").putImageData(new ImageData(pixels, width, height), 0, 0);
  photo = next;
  photo.place ??= UNMOVED;
  person = found;
  cut = isCut();
}

/** A video's picture is shown as the video will be: nothing is moved, framed or outlined in it. */
const isVideo = () => Boolean(photo?.still);
const frameName = () => (isVideo() ? "photo" : $("frame").value);

const moved = () => (chosen("layer") === "background" && !$("layers").hidden ? "background" : "person");
function placeOf(layer) {
  if (isVideo()) return UNMOVED;
  return layer === "background" ? behind : photo?.place ?? UNMOVED;
}

function layout() {
  const margin = $("margin").value / 100;
  return frameOf(frameName(), content, person, margin, !cut);
}

/** Whether the picture is the whole photo, with nothing moved: before and after can be compared. */
export const isWhole = () => frameName() === "photo" && isUnmoved(placeOf("person"));

function layersOf(frame) {
  const { left, top, right, bottom } = person?.box ?? { left: 0, top: 0, right: content.width, bottom: content.height };
  const pivot = { x: (left + right) / 2, y: (top + bottom) / 2 };
  const styled = cut && !isVideo();
  const draw = chosen("mode") === "replace" ? backdrop() : null;
  return {
    content,
    matrix: matrixOf(frame, placeOf("person"), pivot),
    background: draw && ((context, width, height) => draw(context, width, height, placeOf("background"))),
    shadow: styled ? $("shadow").value / 100 : 0,
    outline: { width: styled ? $("outline").value / 1000 : 0, color: $("outline_color").value },
    round: frameName() === "circle",
  };
}

/** Show the picture: finished, or for the brush the content alone. */
export function showFinished({ plain = false, moving = false } = {}) {
  clearTimeout(resting);
  if (plain) {
    showDrawn(content.width, content.height, (canvas) => {
      Object.assign(canvas, { width: content.width, height: content.height });
      canvas.getContext("2d").drawImage(content, 0, 0);
    });
  } else {
    const frame = layout();
    const zoom = moving ? Math.min(1, PREVIEW_SIDE / Math.max(frame.width, frame.height)) : 1;
    showDrawn(frame.width, frame.height, (canvas) => compose(canvas, frame, layersOf(frame), zoom));
    if (moving) resting = setTimeout(showFinished, REST);
  }
  showGuides(plain);
  if (!moving) finish.changed();
}

/** A new canvas with the finished picture at full size. */
export function finished() {
  const frame = layout();
  const canvas = new OffscreenCanvas(frame.width, frame.height);
  compose(canvas, frame, layersOf(frame));
  return canvas;
}

/** { width, height } in pixels, and { size } in millimetres of a printed one. */
export function finishedSize() {
  const { width, height } = layout();
  return { width, height, size: FRAMES[frameName()].size };
}

function showGuides(hidden) {
  const guides = chosen("tool") === "frame" && !hidden ? guidesOf($("frame").value) : null;
  $("guides").hidden = !guides;
  if (!guides) return;
  const percent = (value) => `${100 * value}%`;
  $("crown").style.top = percent(guides.crown);
  $("chin").style.top = percent(guides.chin[0]);
  $("chin").style.height = percent(guides.chin[1] - guides.chin[0]);
}

// Controls

const toSlider = (scale) => Math.round(100 * Math.log2(scale)); // sliders are even in both directions
const fromSlider = (value) => 2 ** (value / 100);

/** Bring the controls to what they move. */
export function arrangeFinish() {
  const name = $("frame").value;
  $("margin_row").hidden = name !== "person";
  write($("frame_note"), FRAMES[name].size ? "frame_note" : "move_note");
  $("layers").hidden = chosen("mode") !== "replace" || chosen("background") !== "own";
  const layer = moved();
  const { scale, angle } = placeOf(layer);
  $("move_scale").min = layer === "background" ? 0 : toSlider(MIN_SCALE);
  $("move_scale").value = toSlider(scale);
  $("move_angle").value = angle;
  $("move_angle").disabled = layer === "background";
  $("move_reset").disabled = isUnmoved(placeOf(layer));
  for (const id of ["shadow", "outline", "outline_color"]) $(id).disabled = !isCut();
  $("style_note").hidden = isCut();
}

function move(change) {
  if (!photo) return;
  const layer = moved();
  const place = { ...placeOf(layer), ...change };
  const lowest = layer === "background" ? 1 : MIN_SCALE;
  place.scale = Math.min(MAX_SCALE, Math.max(lowest, place.scale));
  place.x = Math.min(1, Math.max(-1, place.x));
  place.y = Math.min(1, Math.max(-1, place.y));
  if (layer === "background") behind = { ...place, angle: 0 };
  else photo.place = place;
  arrangeFinish();
  showFinished({ moving: true });
}

let last = null; // place of the pointer that moves a layer

/** What pointers and keys do on the picture while it is arranged: a tool of figure.js. */
export const mover = {
  label: "move_here",
  down: (event) => { last = fractionOf(event); },
  move(event) {
    const now = fractionOf(event);
    const { x, y } = placeOf(moved());
    move({ x: x + now.x - last.x, y: y + now.y - last.y });
    last = now;
  },
  hover() {},
  leave() {},
  up() {},
  cancel() {},
  pinch(factor, degrees) {
    const { scale, angle } = placeOf(moved());
    move({ scale: scale * factor, angle: angle + degrees });
  },
  key({ key, shiftKey }) {
    const step = shiftKey ? 0.002 : 0.02;
    const { scale, x, y } = placeOf(moved());
    const changes = {
      ArrowLeft: { x: x - step }, ArrowRight: { x: x + step },
      ArrowUp: { y: y - step }, ArrowDown: { y: y + step },
      "+": { scale: scale * 1.05 }, "=": { scale: scale * 1.05 }, "-": { scale: scale / 1.05 },
    };
    if (changes[key]) move(changes[key]);
    return Boolean(changes[key]);
  },
};

$("move_scale").oninput = ({ target }) => move({ scale: fromSlider(target.value) });
$("move_angle").oninput = ({ target }) => move({ angle: Number(target.value) });
$("move_reset").onclick = () => {
  move(UNMOVED);
  showFinished();
};
$("frame_panel").onchange = $("margin").oninput = $("style").oninput = () => {
  arrangeFinish();
  if (photo && source() === "photo") showFinished({ moving: true });
};

for (const name of Object.keys(FRAMES)) {
  const option = new Option("", name);
  write(option, `frame_${name}`);
  $("frame").append(option);
}
