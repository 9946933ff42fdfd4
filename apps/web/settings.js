// The visitor's settings: the browser keeps them for the next visit, and an address can carry them.
// What is as in index.html is left out of both.

import { getOwnColors, setOwnColors } from "./look.js";
import { recall, remember } from "./memory.js";
import { $ } from "./page.js";

const RADIOS = ["mode", "background"];
const FIELDS = [
  "blur", "hair", "frame", "margin", "shadow", "outline", "outline_color", "format", "quality",
  "brush_size", "softness", "follow", "mirror", "size",
];
const HEX = /^#[0-9a-f]{6}$/;
const others = {}; // name -> { get, set } of settings that are no element's value
const radios = (name) => [...document.querySelectorAll(`input[name="${name}"]`)];

/** Keep another setting; `set` ignores what it does not know. */
export function keep(name, get, set) {
  others[name] = { get, set };
}

function valueOf(name) {
  if (others[name]) return others[name].get();
  if (!RADIOS.includes(name)) return $(name).type === "checkbox" ? String($(name).checked) : $(name).value;
  const { value } = radios(name).find(({ checked }) => checked);
  return value === "color" ? $("color").value : value;
}

function setValue(name, value) {
  if (others[name]) return others[name].set(value);
  if (RADIOS.includes(name)) {
    if (name === "background" && HEX.test(value)) showColor(value);
    const radio = radios(name).find((each) => each.value === value);
    if (radio && value !== "own") radio.checked = true; // the visitor's own photo is not kept
  } else if ($(name).type === "checkbox") {
    $(name).checked = value === "true";
  } else if ($(name).type !== "color" || HEX.test(value)) {
    const before = $(name).value;
    $(name).value = value;
    if ($(name).value === "") $(name).value = before; // a menu does not have it
  }
}

function showColor(color) {
  if (!radios("background").some(({ value }) => value === color)) setOwnColors([color, ...getOwnColors()]);
}

keep("colors", () => getOwnColors().join(), (value) => setOwnColors(value.split(",")));
let usual = null; // name -> value in index.html

function changedSettings() {
  const changed = Object.entries(usual).filter(([name, value]) => valueOf(name) !== value);
  return new URLSearchParams(changed.map(([name]) => [name, valueOf(name)]));
}

/** Take over the settings of the last visit, then those of the address; keep every change. */
export function startSettings(query) {
  const names = [...Object.keys(others), ...RADIOS, ...FIELDS]; // colours come before the chosen one
  usual = Object.fromEntries(names.map((name) => [name, valueOf(name)]));
  for (const given of [new URLSearchParams(recall("settings") ?? ""), query]) {
    for (const name of names) if (given.has(name)) setValue(name, given.get(name));
  }
  const save = () => remember("settings", changedSettings());
  for (const event of ["input", "change"]) $("controls").addEventListener(event, save);
}

/** The page's address with the settings. */
export function linkToSettings() {
  const link = new URL(location.href);
  for (const name of Object.keys(usual)) link.searchParams.delete(name);
  for (const [name, value] of changedSettings()) link.searchParams.set(name, value);
  return link.href;
}
