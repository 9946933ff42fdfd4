// The page's language: what the address says (?language=), the visitor's choice, or the browser's.
// An element names its sentences of strings.js itself: data-text, data-label, data-title, data-alt.

import { recall, remember } from "./memory.js";
import { LANGUAGES, sentence } from "./strings.js";

const KINDS = { text: "textContent", label: "ariaLabel", title: "title", alt: "alt" };
const NAMES = { en: "EN", "zh-CN": "中文" };
const given = new WeakMap(); // element -> { kind: values of its sentence }

const known = (name) => LANGUAGES.find((each) => each.slice(0, 2) === name?.slice(0, 2).toLowerCase());
const wishes = [
  new URLSearchParams(location.search).get("language"),
  recall("language"),
  ...navigator.languages,
];
let language = wishes.map(known).find(Boolean) ?? LANGUAGES[0];

function translate(element) {
  for (const [kind, property] of Object.entries(KINDS)) {
    const key = element.dataset[kind];
    if (key) element[property] = sentence(language, key, given.get(element)?.[kind]);
  }
}

/**
 * Show a sentence in an element, or give it another `kind` of text; it follows the language.
 *
 * @param key of strings.js; null shows nothing
 */
export function write(element, key, values, kind = "text") {
  if (key === null) {
    delete element.dataset[kind];
    element[KINDS[kind]] = "";
    return;
  }
  element.dataset[kind] = key;
  given.set(element, { ...given.get(element), [kind]: values });
  translate(element);
}

/** A sentence in the page's language, for what is no element: file names and menus. */
export const text = (key, values) => sentence(language, key, values);

function translateAll() {
  document.documentElement.lang = language;
  const selector = Object.keys(KINDS).map((kind) => `[data-${kind}]`);
  for (const element of document.querySelectorAll(selector)) translate(element);
  const button = document.getElementById("language");
  button.lang = LANGUAGES.find((each) => each !== language);
  button.textContent = NAMES[button.lang];
}

document.getElementById("language").onclick = ({ currentTarget }) => {
  language = currentTarget.lang;
  remember("language", language);
  translateAll();
};
translateAll();
