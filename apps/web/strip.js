// The strip: a tile for each photo and video, with a small picture of it and a button that removes it.
// Small pictures are made one after the other, so that a hundred large photos do not fill the memory.

import { write } from "./language.js";
import { $ } from "./page.js";

const SIDE = 120; // of a tile's picture, pixels

/** { id, file, name, url, tile, picture }, and what other modules keep for a photo. */
export const photos = [];
/** `open(photo)` is called when a tile is pressed, `removed(photo, next)` after a removal. */
export const strip = { open() {}, removed() {} };
let added = 0; // how many photos were added: the last one's id
let turn = Promise.resolve(); // the last small picture

function button(className, key, name, onclick) {
  const element = Object.assign(document.createElement("button"), { type: "button", className, onclick });
  write(element, key, { name }, "label");
  return element;
}

/** Add tiles for files; returns their photos. */
export function addFiles(files) {
  const fresh = [...files].map((file) => {
    const tile = Object.assign(document.createElement("div"), { className: "thumb" });
    const picture = Object.assign(document.createElement("canvas"), { width: SIDE, height: SIDE });
    const photo = { id: ++added, file, name: file.name.replace(/\.[^.]*$/, ""), tile, picture };
    const open = button("open", "open_photo", file.name, () => strip.open(photo));
    open.append(picture);
    open.onkeydown = ({ key }) => { // a handler that returned false would hold the tab key
      if (key === "Delete" || key === "Backspace") remove(photo);
    };
    tile.append(open, button("remove", "remove_photo", file.name, () => remove(photo)));
    tile.lastChild.append("×");
    return photo;
  });
  photos.push(...fresh);
  $("strip").append(...fresh.map(({ tile }) => tile));
  return fresh;
}

/** Make the small pictures of these photos after `first`, a promise. */
export function drawTiles(fresh, first) {
  turn = Promise.allSettled([turn, first]);
  for (const photo of fresh) turn = turn.then(() => photos.includes(photo) && drawTile(photo)).catch(() => {});
}

async function drawTile({ picture, file, still }) {
  const small = { resizeWidth: 2 * SIDE, resizeQuality: "medium" };
  const bitmap = await createImageBitmap(still ?? file, small);
  const ratio = SIDE / Math.min(bitmap.width, bitmap.height);
  const [width, height] = [bitmap.width * ratio, bitmap.height * ratio];
  picture.getContext("2d").drawImage(bitmap, (SIDE - width) / 2, (SIDE - height) / 2, width, height);
  bitmap.close();
}

/** Take a photo out of the strip. */
export function forget(photo) {
  photos.splice(photos.indexOf(photo), 1);
  photo.tile.remove();
  URL.revokeObjectURL(photo.url);
}

function remove(photo) {
  const next = photos[photos.indexOf(photo) + 1] ?? photos[photos.indexOf(photo) - 1];
  forget(photo);
  next?.tile.firstElementChild.focus();
  strip.removed(photo, next ?? null);
}

/** Show which photo is open. */
export function markOpen(photo) {
  for (const each of photos) each.tile.firstElementChild.ariaCurrent = each === photo;
  photo.tile.scrollIntoView({ block: "nearest", inline: "nearest" });
}

/** Mark a photo whose opening failed; to press its tile tries again. */
export function markFailed(photo, failed) {
  photo.tile.classList.toggle("failed", failed);
  const key = failed ? "retry_photo" : "open_photo";
  write(photo.tile.firstElementChild, key, { name: photo.file.name }, "label");
}

/** Names for the photos' files, each once: a second "a" is "a (2)". */
export function makeNamer() {
  const used = new Set();
  return (name, ending) => {
    let unique = `${name}.${ending}`;
    for (let i = 2; used.has(unique.toLowerCase()); i++) unique = `${name} (${i}).${ending}`;
    used.add(unique.toLowerCase());
    return unique;
  };
}
