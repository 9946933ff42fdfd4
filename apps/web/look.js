// The look that the visitor chooses: an effect and its options, named as in effects.js.

import { BACKGROUNDS } from "./backgrounds.js";
import { write } from "./language.js";
import { $, ask, chosen, warn } from "./page.js";

/** `background` is [red, green, blue], a name in BACKGROUNDS, or "own". */
export function look() {
  const name = chosen("background");
  const hex = $("color").value;
  const color = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  return {
    mode: chosen("mode"),
    blur: $("blur").value / 100,
    background: name === "color" ? color : name,
  };
}

const changed = (element) => element.dispatchEvent(new Event("input", { bubbles: true }));

function check(name) {
  document.querySelector(`input[name="background"][value="${name}"]`).checked = true;
}

// The gallery: drawn backgrounds, a colour, the visitor's own photo

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
$("gallery").prepend(...tiles);

$("color").onclick = () => {
  check("color");
  changed($("color"));
};

let own = null; // address of the visitor's background photo, null if there is none

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
  } catch {
    return warn("unreadable", { name: file.name });
  }
  URL.revokeObjectURL(own);
  own = URL.createObjectURL(file);
  $("own").style.backgroundImage = `url(${own})`;
  check("own");
  changed($("own"));
};
