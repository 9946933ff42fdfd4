// The page: photos, the shown picture, and the buttons.
// The address may contain ?threads=1, ?backend=wasm or webgpu, ?model=full or lite, ?language=en or
// zh-CN, and the settings of settings.js.

import { canShare, keepOffline, send, SITE, takeShared } from "./app.js";
import { camera, canRecord, chooseCamera, record, startCamera, stopCamera, turnCamera } from "./camera.js";
import { showWhole, split, useTool } from "./figure.js";
import {
  arrangeFinish, contentMode, finish, finished, finishedSize, isWhole, mover, setContent, showFinished,
} from "./finish.js";
import { DPI } from "./frames.js";
import { look } from "./look.js";
import { write } from "./language.js";
import { $, ask, busy, chosen, clock, failed, megabytes, ms, say, showProgress, source, warn } from "./page.js";
import { arePainted, brush, painting, paintOn } from "./painting.js";
import { copy, download, encode, withResolution } from "./save.js";
import { keep, linkToSettings, startSettings } from "./settings.js";
import { Problem } from "./strings.js";
import { addFiles, drawTiles, forget, makeNamer, markFailed, markOpen, photos, strip } from "./strip.js";
import { convert, isVideo, openVideo } from "./video.js";

const NOBODY = 0.001; // person fraction of a photo below which nobody was found
// The shown photo of strip.js, with { message, times, nobody }; a video's `still` is one of its pictures.
let opened = null;
let requests = 0; // how often a photo was to be opened: only the last request counts
let opening = false; // a photo is being opened
let job = null; // AbortController of the video or ZIP that is being made
const models = { photo: "full", camera: "lite" }; // the network that the visitor chose for each source

function check(model) {
  document.querySelector(`[name="model"][value="${model}"]`).checked = true;
}

// Visibility of the page's parts

const TOOLS = { brush, frame: mover }; // what pointers do on a photo while a panel is open

/** The open panel: a camera and a video have none but the effects. */
const panel = () => (source() === "photo" && !opened?.still ? chosen("tool") : "effect");

function arrange() {
  const still = source() === "photo";
  const shown = Boolean(still ? opened : camera.stream);
  const nobody = Boolean(still && opened?.nobody);
  const tool = TOOLS[panel()];
  const divided = still && !nobody && !tool && !job && isWhole();
  $("empty").hidden = shown;
  $("figure").hidden = !shown;
  $("zoom").hidden = !shown;
  $("before").hidden = !still || Boolean(job) || !(divided || nobody || tool === brush);
  $("split").hidden = $("divider").hidden = !divided;
  const place = divided ? `${$("split").value}%` : nobody && !tool ? "100%" : "0%";
  $("figure").style.setProperty("--split", place);
  $("figure").classList.toggle("painting", tool === brush);
  $("strip").hidden = !still || photos.length < 2;
  write($("save"), still ? "download" : "take");
  const video = Boolean(still && opened?.still);
  if (video) write($("save"), job ? "cancel" : "make_video");
  write($("save_all"), job ? "cancel" : "download_all");
  const saving = Boolean(job && !video); // a ZIP
  $("save").disabled = $("copy").disabled = $("send").disabled = !shown || nobody || opening || saving;
  $("save_all").disabled = opening && !job;
  for (const part of ["panels", "tools", "settings", "strip", "sources", "another"]) $(part).inert = Boolean(job);
  $("quality_row").hidden = !still || video || $("format").value === "image/png";
  arrangeFinish();
  $("record").disabled = $("stop").disabled = !camera.stream;
  for (const part of ["size", "device", "sound", "turn"]) $(part).disabled = Boolean(camera.recording);
  const now = { mode: chosen("mode"), source: source(), panel: panel() };
  for (const part of document.querySelectorAll("[data-mode], [data-source], [data-panel]")) {
    part.hidden = Object.entries(now).some(([name, value]) => (part.dataset[name] ?? value) !== value);
  }
  const several = $("device").options.length > 1;
  const phone = matchMedia("(hover: none)").matches; // its cameras are in front and at the back
  $("devices").hidden ||= !several || phone;
  $("turn").hidden ||= !several || !phone;
  $("large").hidden = !SITE.networks.large || !still; // too slow for a camera
  $("record").hidden ||= !canRecord();
  $("copy").hidden = !window.ClipboardItem || video;
  $("format").parentElement.hidden = video;
  $("send").hidden = video || !canShare($("format").value);
  $("tools").hidden ||= video;
  $("hair_row").hidden ||= video;
  $("save_all").hidden ||= photos.length < 2 || (video && Boolean(job));
}

// Photos

/** Add files to the strip and open the first one. */
function add(files) {
  const fresh = addFiles(files);
  if (!fresh.length) return;
  document.querySelector('input[name="source"][value="photo"]').checked = true;
  stopCamera();
  drawTiles(fresh, job ? null : open(fresh[0]));
  arrange();
}

strip.open = (photo) => open(photo);
strip.removed = (photo, next) => {
  if (photo === opened) {
    opened = null;
    if (next) open(next);
    else showMessage();
  }
  arrange();
  if (photos.length < 2) $(next ? "another" : "choose").focus(); // the strip has gone
};

async function open(photo) {
  if (!(await ready)) return;
  busy(true);
  say("finding");
  await find(photo).catch(failed);
  if (!opening) busy(false);
}

/**
 * Find the person in a photo and show it; a later call takes precedence. What cannot be read leaves
 * the strip, other failures are marked there.
 */
async function find(photo) {
  const request = ++requests;
  opening = true;
  arrange();
  try {
    if (isVideo(photo.file)) await addStill(photo);
    const bitmap = await createImageBitmap(photo.still ?? photo.file).catch(() => {
      throw new Problem("unreadable", { name: photo.file.name });
    });
    if (request !== requests) return bitmap.close();
    const found = await ask("open", { bitmap, model: models.photo, photo: photo.id });
    if (request === requests) await present(photo, found);
    markFailed(photo, false);
  } catch (error) {
    if (error.key?.startsWith("unreadable")) forget(photo);
    else markFailed(photo, true);
    throw error;
  } finally {
    if (request === requests) opening = false;
    arrange();
  }
}

/** Whether a photo shows nobody; in a video a person may come later. */
const isNobody = (photo, personFraction) => !photo.still && personFraction < NOBODY;

/** Give a video a picture of itself, to choose the effect by. */
async function addStill(video) {
  if (video.still) return;
  const { poster, seconds } = await openVideo(video.file);
  Object.assign(video, { still: poster, seconds });
}

async function present(photo, { personFraction, width, height, network, total }) {
  const again = opened === photo; // with the other network: zoom and divider stay
  opened = photo;
  opened.nobody = isNobody(photo, personFraction);
  opened.solved = false; // hair, which takes seconds
  paintOn(photo, { width, height });
  opened.message = { name: photo.file.name, width, height };
  const percent = (100 * personFraction).toFixed(1);
  opened.times = { percent, network: ms(network), total: ms(total) };
  markOpen(photo);
  if (job) return draw(); // nobody looks at the original
  photo.url ??= URL.createObjectURL(photo.still ?? photo.file);
  await Object.assign(new Image(), { src: photo.url }).decode(); // so that the photo appears at once
  await draw();
  $("original").src = photo.url;
  if (again) return;
  useTool(TOOLS[panel()] ?? null);
  showWhole();
  split(50);
}

let drawing = null;
let stale = false;

/** Draw the photo with the current look; during a drawing only the last request is remembered. */
async function draw() {
  stale = true;
  drawing ??= (async () => {
    while (stale) {
      stale = false;
      const photo = opened;
      const strokes = [...photo.strokes];
      const wanted = { ...look(), mode: contentMode(chosen("mode")) };
      wanted.hair &&= !photo.still;
      if (wanted.hair && !photo.solved && !job) {
        busy(true);
        say("finding_hair");
      }
      const drawn = await ask("draw", { photo: photo.id, look: wanted, strokes });
      if (drawn) photo.solved ||= wanted.hair;
      if (!drawn || photo !== opened || source() !== "photo") continue;
      photo.nobody = isNobody(photo, drawn.personFraction);
      photo.times.percent = (100 * drawn.personFraction).toFixed(1);
      setContent(photo, drawn);
      showFinished({ plain: panel() === "brush" });
      arePainted(strokes);
    }
  })().finally(() => {
    drawing = null;
    if (!job) busy(opening);
  });
  await drawing;
  if (source() === "photo" && !job) showMessage();
  arrange();
}

function showMessage() {
  if (!opened) return say("ready");
  write($("times"), "photo_times", opened.times);
  if (opened.nobody) warn("nobody");
  else if (opened.seconds) say("video_size", { ...opened.message, length: clock(opened.seconds) });
  else say("photo_size", opened.message);
}

function redraw() {
  arrange();
  if (source() === "photo" && opened) draw().catch(failed);
}

// The visitor's actions

$("choose").onclick = $("another").onclick = () => $("files").click();
$("start").onclick = () => ready.then((loaded) => loaded && startCamera());
$("stop").onclick = stopCamera;
$("record").onclick = record;
$("size").onchange = () => camera.stream && startCamera();
$("device").onchange = () => camera.stream && chooseCamera();
$("turn").onclick = turnCamera;
$("look").oninput = $("hair").onchange = redraw;
camera.changed = arrange;
painting.changed = redraw;
$("tools").onchange = () => {
  useTool(TOOLS[panel()] ?? null);
  showWhole();
  if (opened && !opening) showFinished({ plain: panel() === "brush" });
  arrange();
};

$("files").onchange = ({ target }) => {
  add(target.files);
  target.value = ""; // so that the same file can be chosen again
};

for (const sample of document.querySelectorAll("#samples button")) {
  sample.onclick = async () => {
    const { src, alt } = sample.firstElementChild;
    const blob = await (await fetch(src)).blob();
    add([new File([blob], `${alt}.jpg`, { type: blob.type })]);
  };
}

let large = null; // promise of the large network, once it is wanted

/** Load the large network: false if that failed or another one was chosen meanwhile. */
async function loadLarge() {
  const size = megabytes(SITE.networks.large);
  busy(true, true);
  say("loading_large", { size });
  large ??= ask("download").then(() => ask("begin", { model: "large" }));
  try {
    await large;
  } catch (error) {
    large = null; // to choose it again tries again
    check((models.photo = "full"));
    warn("cannot_load", { reason: error });
  }
  busy(opening);
  return Boolean(large) && chosen("model") === "large";
}

$("models").onchange = async () => {
  const model = chosen("model");
  if (model === "large" && (!(await ready) || !(await loadLarge()))) return;
  models[source()] = model;
  if (source() !== "photo") return;
  if (opened) open(opened);
  else showMessage();
};

$("sources").onchange = () => {
  check(models[source()]);
  useTool(TOOLS[panel()] ?? null);
  if (source() === "photo") {
    stopCamera();
    showMessage();
    redraw();
  } else {
    write($("times"), null);
    say("camera_is_off");
    arrange();
  }
};

let file = null; // promise of the finished picture's file, until the picture changes
let weighing = 0; // timer

/** The finished picture as a file; made once for each picture. */
function finishedFile() {
  const { size } = finishedSize();
  file ??= encode(finished(), $("format").value, $("quality").value / 100)
    .then((blob) => (size ? withResolution(blob, DPI) : blob));
  return file;
}

/** Show the finished picture's size a little later, when the visitor looks rather than moves. */
finish.changed = () => {
  file = null;
  write($("weight"), null);
  clearTimeout(weighing);
  weighing = setTimeout(() => weigh().catch(failed), 600);
};

async function weigh() {
  if (source() !== "photo" || !opened || opened.nobody || opened.still || opening || job) return;
  const made = finishedFile();
  const { size: bytes } = await made;
  if (made !== file) return; // the picture has changed
  const { width, height, size } = finishedSize();
  const shown = bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : megabytes(bytes);
  const values = { width, height, bytes: shown, wide: size?.[0], high: size?.[1] };
  write($("weight"), size ? "weight_print" : "weight", values);
}

/** Make the opened video with the chosen effect, and save it; pressed again, cancel. */
async function saveVideo() {
  if (job) return job.abort();
  const video = opened;
  const settings = { look: look(), model: models.photo };
  const begun = performance.now();
  const progress = (done) => {
    const left = ((1 - done) / done) * ((performance.now() - begun) / 1000);
    showProgress(done);
    say("video_progress", { percent: Math.floor(100 * done), length: clock(left) }, "off");
  };
  job = new AbortController();
  busy(true, true);
  say("video_begins");
  arrange();
  let said;
  try {
    const { blob, ending, silent } = await convert(video.file, settings, progress, job.signal);
    const name = `${video.name}_${settings.look.mode}.${ending}`;
    download(blob, name);
    said = () => say(silent ? "video_silent" : "video_done", { name, size: megabytes(blob.size) });
  } catch (error) {
    said = () => (error.name === "AbortError" ? say("video_canceled") : failed(error));
  }
  job = null;
  busy(false);
  await draw().catch(failed);
  said();
}

async function save() {
  if (source() === "photo" && opened.still) return saveVideo();
  download(await shownFile(), shownName());
}

const shownName = () => `${source() === "photo" ? opened.name : "camera"}_${chosen("mode")}.${ending()}`;

const ending = () => ($("format").value === "image/jpeg" ? "jpg" : $("format").value.slice(6));
const shownFile = () => (source() === "photo" ? finishedFile() : encode($("result"), $("format").value));

/** Save all photos in one ZIP, one after the other; pressed again, cancel. */
async function saveAll() {
  if (job) return job.abort();
  const { downloadZip } = await import("./libraries/client-zip.mjs");
  const all = photos.filter(({ file }) => !isVideo(file));
  const name = makeNamer();
  const { signal } = (job = new AbortController());
  const begun = opened;
  let saved = 0;
  async function* files() {
    for (const [i, photo] of all.entries()) {
      signal.throwIfAborted();
      showProgress(i / all.length);
      say("zip_progress", { number: i + 1, all: all.length }, "off");
      if (!(await find(photo).then(() => true, () => false)) || photo.nobody) continue;
      const input = await shownFile();
      yield { name: name(`${photo.name}_${chosen("mode")}`, ending()), lastModified: photo.file.lastModified, input };
      saved++;
    }
  }
  busy(true, true);
  arrange();
  let said;
  try {
    const blob = await downloadZip(files()).blob();
    if (saved) download(blob, `photos_${chosen("mode")}.zip`);
    const values = { saved, all: all.length, size: megabytes(blob.size) };
    said = () => (saved < all.length ? warn("some_saved", values) : say("all_saved", values));
  } catch (error) {
    said = () => (signal.aborted ? say("zip_canceled") : failed(error));
  }
  job = null;
  busy(false);
  if (photos.includes(begun)) await find(begun).catch(() => {});
  arrange();
  said();
}

$("format").onchange = $("quality").oninput = () => {
  arrange();
  if (opened) finish.changed();
};

$("save").onclick = () => save().catch(failed);
$("send").onclick = async () => send(await shownFile(), shownName()).catch(failed);
$("save_all").onclick = () => saveAll().catch(failed);
$("copy").onclick = () =>
  copy(source() === "photo" ? finished() : $("result")).then(
    () => say("copied"),
    (error) => warn("cannot_copy", { reason: error }),
  );

$("link").onclick = async () => {
  const link = linkToSettings();
  history.replaceState(null, "", link);
  await navigator.clipboard.writeText(link).then(() => say("link_copied"), () => say("link_shown"));
};

addEventListener("paste", ({ clipboardData }) => add(clipboardData.files));
addEventListener("dragover", (event) => {
  event.preventDefault();
  $("stage").classList.add("over");
});
addEventListener("dragleave", ({ relatedTarget }) => {
  if (!relatedTarget) $("stage").classList.remove("over");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  $("stage").classList.remove("over");
  add(event.dataTransfer.files);
});

// Start

const query = new URLSearchParams(location.search);
const threads = query.has("threads") ? Number(query.get("threads")) : undefined;
const names = ["full", "lite"];
const FIRST_PHOTO = 5000; // ms after which the page is kept for later; until then a photo has the time

/** Load the network that the address names. */
async function load() {
  const model = query.get("model") ?? models.photo;
  if (!names.includes(model)) throw new Problem("no_network", { name: model });
  if (query.has("model")) models.photo = models.camera = model;
  check(model);
  return ask("load", { threads, backend: query.get("backend") ?? undefined });
}

if (SITE.networks.large) write($("large"), "about_large", { size: megabytes(SITE.networks.large) }, "title");
for (const name of Object.keys(models)) {
  keep(`model_${name}`, () => models[name], (value) => names.includes(value) && (models[name] = value));
}
startSettings(query);
arrange();
const ready = load().then(
  ({ backend, threads: count }) => {
    const processor = count > 1 ? "on_threads" : "on_thread";
    write($("runtime"), backend === "webgpu" ? "on_graphics" : processor, { threads: count });
    say("ready");
    setTimeout(keepOffline, FIRST_PHOTO, backend);
    return true;
  },
  (error) => warn("cannot_load", { reason: error }),
);
ready.finally(() => busy(false));

if (query.has("shared")) {
  history.replaceState(null, "", location.pathname); // after a reload the files would not come again
  takeShared().then(add, failed);
}
