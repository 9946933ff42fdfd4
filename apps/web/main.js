// The page: what the visitor does goes to worker.js, what comes back is shown.
// The address may say ?threads=1 and ?backend=wasm or webgpu.

const $ = (id) => document.getElementById(id);
const result = $("result");
const context = result.getContext("2d");

// The worker

const worker = new Worker("worker.js", { type: "module" });
const waiting = new Map();
let last = 0;

/** Let the worker do something; bitmaps in `values` go over to it. */
function ask(name, values = {}) {
  const transfer = values.bitmap ? [values.bitmap] : [];
  worker.postMessage({ id: ++last, name, ...values }, transfer);
  return new Promise((resolve, reject) => waiting.set(last, { resolve, reject }));
}

worker.onmessage = ({ data: { id, result: answer, error, progress } }) => {
  if (progress !== undefined) return showProgress(progress);
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  if (error === undefined) resolve(answer);
  else reject(new Error(error));
};
worker.onerror = () => say("This browser cannot run the page's worker: use a newer one.", true);

// What is shown

function say(text, wrong = false, live = "polite") {
  $("status").ariaLive = live;
  $("status").textContent = text;
  $("status").classList.toggle("wrong", wrong);
}

function showProgress(done) {
  $("busy").style.setProperty("--done", done);
  $("busy").setAttribute("aria-valuenow", Math.round(100 * done));
}

function busy(is) {
  $("busy").hidden = !is;
  $("busy").classList.add("endless"); // only the model's loading has a known length
}

const ms = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`).value;
const source = () => chosen("source");

/** Effect and options as they are chosen now; without a background, replace takes the visitor's. */
function look() {
  const hex = $("color").value;
  const color = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  const mode = chosen("mode");
  const blur = $("blur").value / 100;
  if (mode === "color") return { mode: "replace", background: color };
  return { mode: mode === "background" ? "replace" : mode, blur };
}

let photo = null; // { name, said } once one is open
let camera = null; // the MediaStream while it is on
let wishes = 0; // times that the camera was turned on or off: only the last one counts

function arrange() {
  const shown = source() === "photo" ? Boolean(photo) : Boolean(camera);
  $("empty").hidden = shown;
  $("figure").hidden = !shown;
  $("choose").hidden = source() !== "photo";
  $("start").hidden = source() !== "camera";
  $("invitation").textContent =
    source() === "photo" ? "Drop a photo here, paste one, or" : "See yourself, live:";
  for (const part of [$("original"), $("split"), $("divider")]) part.hidden = source() !== "photo";
  $("figure").style.setProperty("--split", source() === "photo" ? `${$("split").value}%` : "0%");
  $("download").disabled = !shown;
  $("another").disabled = !photo;
  $("stop").disabled = !camera;
  for (const part of document.querySelectorAll("[data-mode], [data-source]")) {
    const fits = (part.dataset.mode ?? chosen("mode")) === chosen("mode");
    part.hidden = !fits || (part.dataset.source ?? source()) !== source();
  }
  $("devices").hidden ||= $("device").options.length < 2;
}

function show({ pixels, width, height }) {
  if (result.width !== width || result.height !== height) Object.assign(result, { width, height });
  context.putImageData(new ImageData(pixels, width, height), 0, 0);
}

const unreadable = ({ name }) =>
  `${name} is no picture this browser can read: choose a JPEG, PNG or WebP.`;

// Photo

async function openPhoto(file) {
  if (!(await ready)) return;
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    return say(unreadable(file), true);
  }
  const { width, height } = bitmap;
  busy(true);
  say(`Finding the person in ${file.name} …`);
  try {
    const { share, network, total } = await ask("open", { bitmap });
    URL.revokeObjectURL($("original").src);
    $("original").src = URL.createObjectURL(file);
    const person = share < 0.001 ? "No person found" : `${(100 * share).toFixed(1)} % person`;
    const said = `${person} · ${width} × ${height} · network ${ms(network)}, in all ${ms(total)}`;
    photo = { name: file.name.replace(/\.[^.]*$/, ""), said };
    $("split").value = 0;
    await drawPhoto();
  } catch (error) {
    say(error.message, true);
  }
  busy(false);
}

let drawing = null;
let stale = false;

/** Draw the photo with the present look; while one drawing runs, only the last wish is kept. */
async function drawPhoto() {
  stale = true;
  drawing ??= (async () => {
    while (stale) {
      stale = false;
      const drawn = await ask("draw", { look: look() });
      if (source() === "photo") show(drawn);
    }
  })().finally(() => (drawing = null));
  await drawing;
  if (source() === "photo") say(photo.said);
  arrange();
}

// Camera

const CAMERA_ERRORS = {
  NotAllowedError: "The camera was not allowed: allow it for this page in the browser's address bar.",
  NotFoundError: "No camera was found: connect one and try again.",
  NotReadableError: "The camera cannot be read: another program may be using it.",
};
const video = Object.assign(document.createElement("video"), { muted: true, playsInline: true });

const stop = (stream) => stream.getTracks().forEach((track) => track.stop());

async function startCamera() {
  if (!(await ready)) return;
  if (!navigator.mediaDevices) {
    return say("This browser gives no camera to this address: use http://127.0.0.1.", true);
  }
  const [width, height] = $("size").value.split(" × ").map(Number);
  const wanted = { width: { ideal: width }, height: { ideal: height } };
  if ($("device").value) wanted.deviceId = { exact: $("device").value };
  stopCamera();
  const wish = wishes;
  say("Waiting for the camera …");
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ video: wanted });
    if (wish !== wishes || document.hidden) return stop(stream);
    camera = stream;
    video.srcObject = stream;
    await video.play();
  } catch (error) {
    if (wish !== wishes) return;
    stopCamera();
    return say(CAMERA_ERRORS[error.name] ?? `The camera failed: ${error.message}`, true);
  }
  camera.getVideoTracks()[0].onended = () => {
    stopCamera();
    say("The camera is gone: connect it and turn it on again.", true);
  };
  await listCameras();
  runCamera(camera);
}

async function listCameras() {
  const present = camera.getVideoTracks()[0].getSettings().deviceId;
  const devices = await navigator.mediaDevices.enumerateDevices();
  const cameras = devices.filter(({ kind }) => kind === "videoinput");
  $("device").replaceChildren(
    ...cameras.map(({ deviceId, label }, i) => {
      return new Option(label || `Camera ${i + 1}`, deviceId, false, deviceId === present);
    }),
  );
}

async function runCamera(stream) {
  await ask("start");
  let frames = 0;
  let since = performance.now();
  let slow = { network: 0, total: 0 };
  while (camera === stream) {
    try {
      const drawn = await ask("frame", {
        bitmap: await createImageBitmap(video),
        mirror: $("mirror").checked,
        look: look(),
      });
      if (camera !== stream) return;
      show(drawn);
      if ($("figure").hidden) arrange();
      frames++;
      slow.network += drawn.network;
      slow.total += drawn.total;
      const passed = performance.now() - since;
      if (passed > 1000) {
        const rate = ((1000 * frames) / passed).toFixed(1);
        const size = `${drawn.width} × ${drawn.height}`;
        const times = `network ${ms(slow.network / frames)}, in all ${ms(slow.total / frames)}`;
        say(`${rate} frames/s · ${size} · ${times}`, false, "off"); // not read out each second
        [frames, since, slow] = [0, performance.now(), { network: 0, total: 0 }];
      }
    } catch (error) {
      stopCamera();
      return say(`The camera stopped: ${error.message}`, true);
    }
    await new Promise(requestAnimationFrame);
  }
}

function stopCamera() {
  wishes++;
  if (camera) stop(camera);
  camera = null;
  video.srcObject = null;
  if (source() === "camera") say("The camera is off.");
  arrange();
}

let paused = false;
document.addEventListener("visibilitychange", () => {
  if (document.hidden && camera) {
    paused = true;
    stopCamera();
  } else if (!document.hidden && paused) {
    paused = false;
    if (source() === "camera") startCamera();
  }
});

// What the visitor does

$("choose").onclick = $("another").onclick = () => $("photo_file").click();
$("choose_background").onclick = () => $("background_file").click();
$("start").onclick = startCamera;
$("stop").onclick = stopCamera;
$("device").onchange = $("size").onchange = () => camera && startCamera();

$("photo_file").onchange = ({ target }) => {
  if (target.files.length) openPhoto(target.files[0]);
  target.value = ""; // so that the same file can be chosen again
};

$("background_file").onchange = async ({ target }) => {
  const [file] = target.files;
  target.value = "";
  if (!file) return;
  try {
    await ask("background", { bitmap: await createImageBitmap(file) });
  } catch {
    return say(unreadable(file), true);
  }
  redraw();
};

function redraw() {
  arrange();
  if (source() === "photo" && photo) drawPhoto().catch((error) => say(error.message, true));
}

$("modes").onchange = redraw;
$("blur").oninput = $("color").oninput = redraw;
$("split").oninput = arrange;

$("sources").onchange = () => {
  if (source() === "photo") {
    stopCamera();
    say(photo ? photo.said : READY);
    redraw();
  } else {
    arrange();
    say("The camera is off.");
  }
};

$("download").onclick = () => {
  result.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${source() === "photo" ? photo.name : "camera"}_${chosen("mode")}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  });
};

function takeFiles(files) {
  if (!files.length) return;
  document.querySelector('input[name="source"][value="photo"]').checked = true;
  stopCamera();
  openPhoto(files[0]);
}

addEventListener("paste", ({ clipboardData }) => takeFiles(clipboardData.files));
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
  takeFiles(event.dataTransfer.files);
});

// The beginning

const READY = "Ready: choose a photo, or turn the camera on.";
const query = new URLSearchParams(location.search);
const threads = query.has("threads") ? Number(query.get("threads")) : undefined;

arrange();
const ready = ask("load", { threads, backend: query.get("backend") }).then(
  ({ backend, threads: count }) => {
    const processor = `the processor, ${count} thread${count > 1 ? "s" : ""}`;
    $("runtime").textContent = `Runs on ${backend === "webgpu" ? "the graphics card" : processor}.`;
    say(READY);
    return true;
  },
  (error) => say(`The network cannot be loaded: ${error.message}`, true),
);
ready.finally(() => busy(false));
