// The brush on the picture: the visitor's strokes, with undo and redo. brush.js computes their effect.

import { fractionOf, pixelsPerFraction } from "./figure.js";
import { $, chosen } from "./page.js";

const COLORS = { restore: "rgb(40 190 110)", erase: "rgb(230 60 60)" };
const TINT_SIDE = 1200; // longer side of the canvas that shows strokes before they take effect, pixels
const tint = $("strokes").getContext("2d");

/** `changed` is called when the photo's strokes have changed. */
export const painting = { changed() {} };
let photo = null; // the photo whose `strokes` are painted; `undone` holds those that can come back
let size = null; // { width, height } of the photo
let waiting = []; // strokes that are shown as a tint until the picture has them
let stroke = null; // the stroke being painted
let place = { x: 0.5, y: 0.5 }; // of the ring, fractions of the picture
let strokes = 0; // how many were painted: the last one's id

/** Paint on a photo from now on. */
export function paintOn(next, nextSize) {
  photo = next;
  size = nextSize;
  photo.strokes ??= [];
  photo.undone ??= [];
  waiting = [];
  stroke = null;
  const ratio = Math.min(1, TINT_SIDE / Math.max(size.width, size.height));
  const side = (length) => Math.max(1, Math.round(length * ratio));
  Object.assign($("strokes"), { width: side(size.width), height: side(size.height) });
  update();
}

/** These strokes are in the picture now: their tint goes. */
export function arePainted(list) {
  waiting = waiting.filter((each) => !list.includes(each));
  drawTint();
}

function update() {
  $("undo").disabled = $("reset").disabled = !photo?.strokes.length;
  $("redo").disabled = !photo?.undone.length;
}

function drawTint() {
  const { width, height } = $("strokes");
  tint.clearRect(0, 0, width, height);
  const ratio = width / (size?.width ?? 1);
  for (const { points, radius, erase } of stroke ? [...waiting, stroke] : waiting) {
    tint.strokeStyle = COLORS[erase ? "erase" : "restore"];
    tint.lineWidth = 2 * radius * ratio;
    tint.lineCap = tint.lineJoin = "round";
    tint.beginPath();
    const [first, ...rest] = points;
    tint.moveTo(first[0] * ratio, first[1] * ratio);
    tint.lineTo(first[0] * ratio + 0.01, first[1] * ratio); // a single point is a disc
    for (const [x, y] of rest) tint.lineTo(x * ratio, y * ratio);
    tint.stroke();
  }
}

function showRing(visible = true) {
  $("ring").hidden = !visible;
  $("ring").style.width = $("ring").style.height = `${$("brush_size").value}px`;
  const { x, y } = pixelsPerFraction();
  $("ring").style.transform = `translate(${x.start + place.x * x.length}px, ${y.start + place.y * y.length}px)`;
  $("ring").classList.toggle("erasing", chosen("brush") === "erase");
}

const pointAt = ({ x, y }) => [x * size.width, y * size.height];

function begin() {
  stroke = {
    id: ++strokes,
    points: [pointAt(place)],
    radius: ($("brush_size").value / 2 / pixelsPerFraction().x.length) * size.width,
    softness: $("softness").value / 100,
    erase: chosen("brush") === "erase",
    follow: $("follow").checked,
  };
}

function end() {
  if (!stroke) return;
  photo.strokes.push(stroke);
  photo.undone = [];
  waiting.push(stroke);
  stroke = null;
  update();
  painting.changed();
}

/** What pointers and keys do on the picture while the brush is chosen: a tool of figure.js. */
export const brush = {
  label: "brush_here",
  down(event) {
    place = fractionOf(event);
    showRing();
    begin();
    drawTint();
  },
  move(event) {
    for (const each of event.getCoalescedEvents?.() ?? [event]) stroke?.points.push(pointAt(fractionOf(each)));
    this.hover(event);
    drawTint();
  },
  hover(event) {
    place = fractionOf(event);
    showRing();
  },
  leave: () => showRing(false),
  up: end,
  cancel() {
    stroke = null;
    drawTint();
  },
  key({ key, shiftKey }) {
    const step = (shiftKey ? 1 : $("brush_size").value / 4) / pixelsPerFraction().x.length;
    const tall = (step * size.width) / size.height;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -tall], ArrowDown: [0, tall] };
    if (moves[key]) {
      const inside = (value) => Math.min(1, Math.max(0, value));
      place = { x: inside(place.x + moves[key][0]), y: inside(place.y + moves[key][1]) };
    } else if (key === " " || key === "Enter") {
      begin();
      end();
      drawTint();
    } else {
      return false;
    }
    showRing();
    return true;
  },
};

function undo() {
  if (!photo?.strokes.length) return;
  photo.undone.push(photo.strokes.pop());
  changed();
}

function redo() {
  if (!photo?.undone.length) return;
  photo.strokes.push(photo.undone.pop());
  changed();
}

function changed() {
  waiting = waiting.filter((each) => photo.strokes.includes(each));
  drawTint();
  update();
  painting.changed();
}

$("undo").onclick = undo;
$("redo").onclick = redo;
$("reset").onclick = () => {
  photo.undone = photo.strokes.reverse(); // so that redo brings them back in order
  photo.strokes = [];
  changed();
};
$("brush_size").oninput = () => showRing();

addEventListener("keydown", (event) => {
  if ($("figure").hidden || chosen("tool") !== "brush") return;
  const key = event.key.toLowerCase();
  const steps = { "[": -8, "]": 8 }[key];
  if (steps) {
    $("brush_size").value = Number($("brush_size").value) + steps;
    showRing();
  } else if ((event.ctrlKey || event.metaKey) && (key === "z" || key === "y")) {
    event.preventDefault();
    if (key === "y" || event.shiftKey) redo();
    else undo();
  }
});
