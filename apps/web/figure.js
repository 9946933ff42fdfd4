// The picture: before and after, divided by a line that the visitor drags, and zoom for both.

import { write } from "./language.js";
import { $ } from "./page.js";

const MAX_ZOOM = 8; // times
const GRAB_DISTANCE = 28; // a finger this near to the line drags the line, pixels
const figure = $("figure");
const result = $("result");
const context = result.getContext("2d");
const zoom = { scale: 1, x: 0, y: 0 }; // x, y: the picture's corner in the figure, pixels
const pointers = new Map(); // pressed pointers: id -> place
let dragging = false; // a pointer drags the line
let tool = null; // what a pointer does instead
let using = false; // a pointer uses the tool

/**
 * Give pointers and keys on the picture to a tool: { label, down, move, hover, leave, up, cancel, key },
 * all with an event; `key` returns whether it used the key. Two fingers zoom, or call `pinch` with a
 * factor and degrees if the tool has it. null: no tool.
 */
export function useTool(next) {
  if (using) tool.cancel();
  tool?.leave();
  using = false;
  tool = next;
  figure.tabIndex = tool ? 0 : -1;
  figure.role = tool ? "application" : "figure";
  write(figure, tool?.label ?? null, {}, "label");
}

/** Where the picture begins in the figure and how long it is, in pixels: { x, y }. */
export function pixelsPerFraction() {
  return {
    x: { start: zoom.x, length: zoom.scale * figure.clientWidth },
    y: { start: zoom.y, length: zoom.scale * figure.clientHeight },
  };
}

/** The place of an event in the picture, as fractions of its sides. */
export function fractionOf(event) {
  const at = placeOf(event);
  const { x, y } = pixelsPerFraction();
  return { x: (at.x - x.start) / x.length, y: (at.y - y.start) / y.length };
}

/** Show RGBA pixels; the figure gets their shape. */
export function show({ pixels, width, height }) {
  if (result.width !== width || result.height !== height) Object.assign(result, { width, height });
  shape(width, height);
  context.putImageData(new ImageData(pixels, width, height), 0, 0);
}

/** Show what `draw` draws on the given canvas; the figure gets the shape of (width, height). */
export function showDrawn(width, height, draw) {
  shape(width, height);
  draw(result);
}

let ratio = 0;

function shape(width, height) {
  if (ratio === width / height) return;
  ratio = width / height;
  figure.style.setProperty("--ratio", ratio);
  showWhole();
}

/** Show the whole picture again. */
export const showWhole = () => zoomTo(1, 0, 0);

/** Divide before and after at a position, in percent of the width. */
export function split(percent) {
  $("split").value = percent;
  figure.style.setProperty("--split", `${$("split").value}%`);
}

function zoomTo(scale, x, y) {
  zoom.scale = Math.min(MAX_ZOOM, Math.max(1, scale));
  const inside = (value, length) => Math.min(0, Math.max(length * (1 - zoom.scale), value));
  zoom.x = inside(x, figure.clientWidth);
  zoom.y = inside(y, figure.clientHeight);
  figure.style.setProperty("--zoom", `translate(${zoom.x}px, ${zoom.y}px) scale(${zoom.scale})`);
  figure.classList.toggle("zoomed", zoom.scale > 1);
  $("scale").textContent = `${zoom.scale.toFixed(zoom.scale < 2 && zoom.scale > 1 ? 1 : 0)} ×`;
}

/** Zoom in by a factor (0: zoom out fully); the point under (x, y) of the figure stays in place. */
function zoomBy(factor, { x, y } = { x: figure.clientWidth / 2, y: figure.clientHeight / 2 }) {
  const scale = Math.min(MAX_ZOOM, Math.max(1, zoom.scale * factor));
  const grown = scale / zoom.scale;
  zoomTo(scale, x - (x - zoom.x) * grown, y - (y - zoom.y) * grown);
}

function placeOf({ clientX, clientY }) {
  const { left, top } = figure.getBoundingClientRect();
  return { x: clientX - left, y: clientY - top };
}

const line = () => ($("split").value / 100) * figure.clientWidth;

figure.onpointerdown = (event) => {
  if (event.button > 1) return;
  figure.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, placeOf(event));
  const near = Math.abs(placeOf(event).x - line()) < GRAB_DISTANCE;
  dragging = !$("divider").hidden && pointers.size === 1 && (zoom.scale === 1 || near);
  if (!tool || event.button) return; // the middle button moves the picture
  if (using) tool.cancel(event);
  using = pointers.size === 1;
  if (using) tool.down(event);
};

figure.onpointermove = (event) => {
  const from = pointers.get(event.pointerId);
  if (!from) return tool?.hover(event);
  const to = placeOf(event);
  pointers.set(event.pointerId, to);
  if (pointers.size === 2) {
    const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
    const apart = ({ x, y }) => Math.max(1, Math.hypot(x - other.x, y - other.y));
    const turn = ({ x, y }) => (180 * Math.atan2(y - other.y, x - other.x)) / Math.PI;
    if (tool?.pinch) {
      const degrees = ((turn(to) - turn(from) + 540) % 360) - 180;
      return tool.pinch(apart(to) / apart(from), degrees);
    }
    zoomBy(apart(to) / apart(from), { x: (to.x + other.x) / 2, y: (to.y + other.y) / 2 });
  } else if (using) {
    tool.move(event);
  } else if (dragging) {
    split((100 * to.x) / figure.clientWidth);
  } else {
    zoomTo(zoom.scale, zoom.x + to.x - from.x, zoom.y + to.y - from.y);
  }
};

figure.onpointerup = figure.onpointercancel = (event) => {
  if (using) tool[event.type === "pointerup" ? "up" : "cancel"](event);
  using = false;
  pointers.delete(event.pointerId);
  dragging = false;
};
figure.onpointerleave = (event) => using || tool?.leave(event);

figure.addEventListener(
  "wheel",
  (event) => {
    event.preventDefault();
    zoomBy(Math.exp(-event.deltaY / 300), placeOf(event));
  },
  { passive: false },
);
figure.ondblclick = (event) => tool || zoomBy(zoom.scale > 1 ? 0 : 3, placeOf(event));
figure.onkeydown = (event) => {
  const { key } = event;
  if (event.target === figure && tool?.key(event)) return event.preventDefault();
  const factor = { "+": 1.5, "=": 1.5, "-": 1 / 1.5, 0: 0 }[key];
  if (factor !== undefined) zoomBy(factor);
};
$("closer").onclick = () => zoomBy(1.5);
$("farther").onclick = () => zoomBy(1 / 1.5);
$("split").oninput = ({ target }) => split(target.value);
new ResizeObserver(() => zoomTo(zoom.scale, zoom.x, zoom.y)).observe(figure);
