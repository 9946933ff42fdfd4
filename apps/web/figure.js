// The picture: before and after, parted by a line that can be dragged, and a closer look at both.

import { $ } from "./page.js";

const MOST = 8; // times, the closest look
const NEAR = 28; // pixels within which a finger means the line
const figure = $("figure");
const result = $("result");
const context = result.getContext("2d");
const zoom = { scale: 1, x: 0, y: 0 }; // of the picture, from the figure's corner
const pointers = new Map(); // those that are down: id -> place
let holds = false; // one of them holds the line

/** Show pixels, RGBA; the figure takes their shape. */
export function show({ pixels, width, height }) {
  if (result.width !== width || result.height !== height) {
    Object.assign(result, { width, height });
    figure.style.setProperty("--ratio", width / height);
    showWhole();
  }
  context.putImageData(new ImageData(pixels, width, height), 0, 0);
}

/** Show the whole of the picture again. */
export const showWhole = () => zoomTo(1, 0, 0);

/** Part before and after at a share of the width, in per cent. */
export function split(share) {
  $("split").value = share;
  figure.style.setProperty("--split", `${$("split").value}%`);
}

function zoomTo(scale, x, y) {
  zoom.scale = Math.min(MOST, Math.max(1, scale));
  const inside = (value, length) => Math.min(0, Math.max(length * (1 - zoom.scale), value));
  zoom.x = inside(x, figure.clientWidth);
  zoom.y = inside(y, figure.clientHeight);
  figure.style.setProperty("--zoom", `translate(${zoom.x}px, ${zoom.y}px) scale(${zoom.scale})`);
  figure.classList.toggle("zoomed", zoom.scale > 1);
  $("scale").textContent = `${zoom.scale.toFixed(zoom.scale < 2 && zoom.scale > 1 ? 1 : 0)} ×`;
}

/** Come closer, `factor` times; what is at a place of the figure stays there. */
function closer(factor, { x, y } = { x: figure.clientWidth / 2, y: figure.clientHeight / 2 }) {
  const scale = Math.min(MOST, Math.max(1, zoom.scale * factor));
  const grown = scale / zoom.scale;
  zoomTo(scale, x - (x - zoom.x) * grown, y - (y - zoom.y) * grown);
}

function placeOf({ clientX, clientY }) {
  const { left, top } = figure.getBoundingClientRect();
  return { x: clientX - left, y: clientY - top };
}

const line = () => ($("split").value / 100) * figure.clientWidth;

figure.onpointerdown = (event) => {
  if (event.button) return;
  figure.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, placeOf(event));
  const near = Math.abs(placeOf(event).x - line()) < NEAR;
  holds = !$("divider").hidden && pointers.size === 1 && (zoom.scale === 1 || near);
};

figure.onpointermove = (event) => {
  const from = pointers.get(event.pointerId);
  if (!from) return;
  const to = placeOf(event);
  pointers.set(event.pointerId, to);
  if (pointers.size === 2) {
    const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
    const apart = ({ x, y }) => Math.max(1, Math.hypot(x - other.x, y - other.y));
    closer(apart(to) / apart(from), { x: (to.x + other.x) / 2, y: (to.y + other.y) / 2 });
  } else if (holds) {
    split((100 * to.x) / figure.clientWidth);
  } else {
    zoomTo(zoom.scale, zoom.x + to.x - from.x, zoom.y + to.y - from.y);
  }
};

figure.onpointerup = figure.onpointercancel = ({ pointerId }) => {
  pointers.delete(pointerId);
  holds = false;
};

figure.addEventListener(
  "wheel",
  (event) => {
    event.preventDefault();
    closer(Math.exp(-event.deltaY / 300), placeOf(event));
  },
  { passive: false },
);
figure.ondblclick = (event) => closer(zoom.scale > 1 ? 0 : 3, placeOf(event));
figure.onkeydown = ({ key }) => {
  const factor = { "+": 1.5, "=": 1.5, "-": 1 / 1.5, 0: 0 }[key];
  if (factor !== undefined) closer(factor);
};
$("closer").onclick = () => closer(1.5);
$("farther").onclick = () => closer(1 / 1.5);
$("split").oninput = ({ target }) => split(target.value);
new ResizeObserver(() => zoomTo(zoom.scale, zoom.x, zoom.y)).observe(figure);
