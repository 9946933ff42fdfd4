// Shared by all parts of the page: its elements, its messages, and the worker.

import { write } from "./language.js";
import { connect } from "./messages.js";

export const $ = (id) => document.getElementById(id);
export const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`).value;
export const source = () => chosen("source"); // "photo" or "camera"
export const ms = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
/** Minutes and seconds, 1:05. */
export function clock(seconds) {
  const rounded = Math.round(seconds);
  return `${Math.floor(rounded / 60)}:${String(rounded % 60).padStart(2, 0)}`;
}
export const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

/** Show a sentence of strings.js. `live` is ARIA's value, "off" if the sentence changes often. */
export function say(key, values, live = "polite") {
  $("status").ariaLive = live;
  $("status").classList.toggle("wrong", live === "assertive");
  write($("status"), key, values);
}

/** Show a sentence of strings.js as an error. */
export const warn = (key, values) => say(key, values, "assertive");

/** Show an error: its own sentence if it has one, the browser's words otherwise. */
export function failed(error) {
  if (error.key) warn(error.key, error.values);
  else warn("failed", { reason: error });
}

/** Whether something runs; `known` if `showProgress` tells how far it is. */
export function busy(is, known = false) {
  $("busy").hidden = !is;
  $("busy").classList.toggle("endless", !known);
  showProgress(0);
}

/** How far it is, 0..1. */
export function showProgress(done) {
  $("busy").style.setProperty("--done", done);
  $("busy").setAttribute("aria-valuenow", Math.round(100 * done));
}

const send = connect("worker.js", showProgress, () => warn("no_worker"));

/** Send a command to the worker and await its result; a bitmap in `values` is transferred. */
export const ask = (name, values = {}) => send(name, values, values.bitmap ? [values.bitmap] : []);
