// Shared by all parts of the page: its elements, its messages, and the worker.

export const $ = (id) => document.getElementById(id);
export const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`).value;
export const source = () => chosen("source"); // "photo" or "camera"
export const ms = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;

/** Show a message. `wrong` marks an error; `live` is ARIA's value, "off" if the text changes often. */
export function say(text, wrong = false, live = "polite") {
  $("status").ariaLive = wrong ? "assertive" : live;
  $("status").textContent = text;
  $("status").classList.toggle("wrong", wrong);
}

export function busy(is) {
  $("busy").hidden = !is;
  $("busy").classList.add("endless"); // only loading the model has a known length
}

function showProgress(done) {
  $("busy").style.setProperty("--done", done);
  $("busy").setAttribute("aria-valuenow", Math.round(100 * done));
}

export const unreadable = ({ name }) =>
  `${name} can't be opened as an image: choose a JPEG, PNG or WebP.`;

const worker = new Worker("worker.js", { type: "module" });
const waiting = new Map();
let last = 0;

/** Send a command to the worker and await its result; a bitmap in `values` is transferred. */
export function ask(name, values = {}) {
  const transfer = values.bitmap ? [values.bitmap] : [];
  worker.postMessage({ id: ++last, name, ...values }, transfer);
  return new Promise((resolve, reject) => waiting.set(last, { resolve, reject }));
}

worker.onmessage = ({ data: { id, result, error, progress } }) => {
  if (progress !== undefined) return showProgress(progress);
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  if (error === undefined) resolve(result);
  else reject(new Error(error));
};
worker.onerror = () => say("This browser cannot run the page's worker: use a newer one.", true);
