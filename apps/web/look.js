// The look that the visitor chooses: an effect and its options, named as in effects.js.

import { BACKGROUNDS } from "./backgrounds.js";
import { drawCovering } from "./compose.js";
import { write } from "./language.js";
import { $, ask, chosen, source, warn } from "./page.js";

const chosenBackground = () => (chosen("background") === "color" ? $("color").value : chosen("background"));

/** `background` is [red, green, blue], a name in BACKGROUNDS, or "own"; `hair` as in worker.js. */
export function look() {
  const name = chosenBackground();
  const color = [1, 3, 5].map((i) => parseInt(name.slice(i, i + 2), 16));
  return {
    mode: chosen("mode"),
    blur: $("blur").value / 100,
    hair: $("hair").checked && source() === "photo",
    background: name.startsWith("#") ? color : name,
  };
}

/** The chosen background as a function of (context, width, height, place), as compose.js takes it. */
export function backdrop() {
  const name = chosenBackground();
  if (name === "own") return (context, ...where) => drawCovering(context, own.bitmap, ...where);
  if (BACKGROUNDS[name]) return BACKGROUNDS[name];
  return (context, width, height) => {
    context.fillStyle = name;
    context.fillRect(0, 0, width, height);
  };
}

const changed = (element) => element.dispatchEvent(new Event("input", { bubbles: true }));

function check(name) {
  document.querySelector(`input[name="background"][value="${name}"]`).checked = true;
}

// The gallery: drawn backgrounds and the visitor's own photo

const tiles = Object.entries(BACKGROUNDS).map(([name, draw], i) => {
  const radio = Object.assign(document.createElement("input"), {
    type: "radio", name: "background", value: name, checked: i === 0,
  });
  const canvas = Object.assign(document.createElement("canvas"), { width: 144, height: 96 });
  draw(canvas.getContext("2d"), canvas.width, canvas.height);
  const tile = Object.assign(document.createElement("label"), { className: "tile" });
  write(tile, name, {}, "title");
  write(radio, name, {}, "label");
  tile.append(radio, canvas);
  return tile;
});
$("tiles").prepend(...tiles);

// Colours: white and black, two of identity photos, and the visitor's own

const COLORS = { "#ffffff": "white", "#000000": "black", "#438edb": "blue", "#d92b2b": "red" };
const MAX_OWN_COLORS = 3;
let ownColors = []; // the newest first

function swatch(color, key) {
  const radio = Object.assign(document.createElement("input"), {
    type: "radio", name: "background", value: color,
  });
  const dot = document.createElement("span");
  dot.style.background = color;
  const label = Object.assign(document.createElement("label"), { className: "swatch" });
  for (const [element, kind] of [[radio, "label"], [label, "title"]]) write(element, key, { color }, kind);
  label.append(radio, dot);
  return label;
}

/** Show the visitor's own colours, like #3f7d5c, beside the given ones. */
export function setOwnColors(colors) {
  ownColors = colors.filter((color) => /^#[0-9a-f]{6}$/.test(color) && !COLORS[color]).slice(0, MAX_OWN_COLORS);
  for (const old of document.querySelectorAll(".swatch.own")) old.remove();
  for (const color of ownColors) {
    const label = swatch(color, "own_color");
    label.classList.add("own");
    $("pick").before(label);
  }
}

export const getOwnColors = () => ownColors;
$("pick").before(...Object.entries(COLORS).map(([color, key]) => swatch(color, key)));

$("color").onclick = () => {
  check("color");
  changed($("color"));
};

/** Keep a chosen colour among the visitor's own. */
$("color").onchange = () => {
  const { value } = $("color");
  if (!COLORS[value]) setOwnColors([value, ...ownColors.filter((color) => color !== value)]);
  check(value);
  changed($("color"));
};

let own = null; // the visitor's background photo: { url, bitmap }; null if there is none

$("own").onclick = () => {
  if (!own || chosen("background") === "own") return $("own_file").click();
  check("own");
  changed($("own"));
};

$("own_file").onchange = async ({ target }) => {
  const [file] = target.files;
  target.value = ""; // so that the same file can be chosen again
  if (!file) return;
  try {
    await ask("background", { bitmap: await createImageBitmap(file) });
    own?.bitmap.close();
    URL.revokeObjectURL(own?.url);
    own = { url: URL.createObjectURL(file), bitmap: await createImageBitmap(file) };
  } catch {
    return warn("unreadable", { name: file.name });
  }
  $("own").style.backgroundImage = `url(${own.url})`;
  check("own");
  changed($("own"));
};
