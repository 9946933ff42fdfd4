// The camera: every frame through the worker, and a film of what is shown.

import { show } from "./figure.js";
import { look } from "./look.js";
import { $, ask, chosen, ms, say, source } from "./page.js";
import { download } from "./save.js";

const ERRORS = {
  NotAllowedError: "The camera was not allowed: allow it for this page in the browser's address bar.",
  NotFoundError: "No camera was found: connect one and try again.",
  NotReadableError: "The camera cannot be read: another program may be using it.",
};
const SLOW = 8; // frames a second, below which a smaller size is worth a word
const FILMS = ["video/webm;codecs=vp9", "video/webm;codecs=vp8", "video/mp4"]; // the first that works
const video = Object.assign(document.createElement("video"), { muted: true, playsInline: true });

/** The stream while the camera is on, the recorder while it films; `changed` hears of both. */
export const camera = { stream: null, recorder: null, changed() {} };
let wishes = 0; // times that the camera was turned on or off: only the last one counts

const stop = (stream) => stream.getTracks().forEach((track) => track.stop());

export async function startCamera() {
  if (!navigator.mediaDevices) {
    return say("This browser gives no camera to this address: use https, or http://127.0.0.1.", true);
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
    camera.stream = stream;
    video.srcObject = stream;
    await video.play();
  } catch (error) {
    if (wish !== wishes) return;
    stopCamera();
    return say(ERRORS[error.name] ?? `The camera failed: ${error.message}`, true);
  }
  camera.stream.getVideoTracks()[0].onended = () => {
    stopCamera();
    say("The camera is gone: connect it and turn it on again.", true);
  };
  await listCameras();
  runCamera(camera.stream);
}

async function listCameras() {
  const present = camera.stream.getVideoTracks()[0].getSettings().deviceId;
  const devices = await navigator.mediaDevices.enumerateDevices();
  const cameras = devices.filter(({ kind }) => kind === "videoinput");
  $("device").replaceChildren(
    ...cameras.map(({ deviceId, label }, i) => {
      return new Option(label || `Camera ${i + 1}`, deviceId, false, deviceId === present);
    }),
  );
}

/** What the camera shows now, with the present look; an error waits until somebody asks for it. */
function frame() {
  const drawn = createImageBitmap(video).then((bitmap) => {
    const mirror = $("mirror").checked;
    return ask("frame", { bitmap, mirror, look: look(), model: chosen("model") });
  });
  drawn.catch(() => {}); // else the browser reports it when the camera is turned off meanwhile
  return drawn;
}

async function runCamera(stream) {
  await ask("start");
  let next = frame();
  let frames = 0;
  let since = performance.now();
  let slow = { network: 0, total: 0 };
  while (camera.stream === stream) {
    try {
      const drawn = await next;
      if (camera.stream !== stream) return;
      next = frame(); // the worker makes it while this one is shown
      show(drawn);
      if ($("figure").hidden) {
        camera.changed();
        say("Live.");
      }
      frames++;
      slow.network += drawn.network;
      slow.total += drawn.total;
      const passed = performance.now() - since;
      if (passed > 1000) {
        const rate = (1000 * frames) / passed;
        if (rate < SLOW && drawn.width > 640) {
          say("Live. A smaller size moves more smoothly.", false, "off"); // not read out each second
        }
        const times = `network ${ms(slow.network / frames)}, in all ${ms(slow.total / frames)}`;
        const size = `${drawn.width} × ${drawn.height} pixels`;
        $("times").textContent = `${rate.toFixed(1)} frames/s of ${size}: ${times}.`;
        [frames, since, slow] = [0, performance.now(), { network: 0, total: 0 }];
      }
    } catch (error) {
      stopCamera();
      return say(`The camera stopped: ${error.message}`, true);
    }
    await new Promise(requestAnimationFrame);
  }
}

export function stopCamera() {
  wishes++;
  camera.recorder?.stop();
  if (camera.stream) stop(camera.stream);
  camera.stream = null;
  video.srcObject = null;
  if (source() === "camera") say("The camera is off.");
  camera.changed();
}

let paused = false;
document.addEventListener("visibilitychange", () => {
  if (document.hidden && camera.stream) {
    paused = true;
    stopCamera();
  } else if (!document.hidden && paused) {
    paused = false;
    if (source() === "camera") startCamera();
  }
});

// A film of what is shown, without sound

export const canRecord = () => Boolean(window.MediaRecorder && $("result").captureStream);

/** Begin a film; stopping it, or the camera, saves it. */
export function record() {
  if (camera.recorder) return camera.recorder.stop();
  const type = FILMS.find((each) => MediaRecorder.isTypeSupported(each));
  const recorder = new MediaRecorder($("result").captureStream(), {
    mimeType: type,
    videoBitsPerSecond: 8e6,
  });
  const name = `camera_${chosen("mode")}.${type.match(/webm|mp4/)}`;
  const parts = [];
  const begun = performance.now();
  const tick = () => {
    const seconds = Math.floor((performance.now() - begun) / 1000);
    $("record").textContent = `Stop · ${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, 0)}`;
  };
  const clock = setInterval(tick, 500);
  recorder.ondataavailable = ({ data }) => parts.push(data);
  recorder.onerror = ({ error }) => say(`The film failed: ${error.message}`, true);
  recorder.onstop = () => {
    clearInterval(clock);
    camera.recorder = null;
    $("record").textContent = "Record a film";
    download(new Blob(parts, { type }), name);
    camera.changed();
  };
  recorder.start(1000); // a part each second: a long film does not wait in one piece
  camera.recorder = recorder;
  tick();
  camera.changed();
}
