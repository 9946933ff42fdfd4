// The camera: the worker processes each frame; the shown frames can be recorded as a video.

import { show } from "./figure.js";
import { look } from "./look.js";
import { text, write } from "./language.js";
import { $, ask, chosen, ms, say, source, warn } from "./page.js";
import { download } from "./save.js";

const ERRORS = ["NotAllowedError", "NotFoundError", "NotReadableError"]; // with their own sentence
const SLOW = 8; // frames/s; below, a smaller size is suggested
// Types of a recorded video; the first supported one is used.
const VIDEO_TYPES = ["video/webm;codecs=vp9", "video/webm;codecs=vp8", "video/mp4"];
const video = Object.assign(document.createElement("video"), { muted: true, playsInline: true });

/** `stream` while the camera is on, `recorder` while it records; `changed` is called on changes. */
export const camera = { stream: null, recorder: null, changed() {} };
let requests = 0; // how often the camera was turned on or off: only the last request counts

const stop = (stream) => stream.getTracks().forEach((track) => track.stop());

export async function startCamera() {
  if (!navigator.mediaDevices) {
    return warn("no_camera_here");
  }
  const [width, height] = $("size").value.split(" × ").map(Number);
  const wanted = { width: { ideal: width }, height: { ideal: height } };
  if ($("device").value) wanted.deviceId = { exact: $("device").value };
  stopCamera();
  const request = requests;
  say("camera_waiting");
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ video: wanted });
    if (request !== requests || document.hidden) return stop(stream);
    camera.stream = stream;
    video.srcObject = stream;
    await video.play();
  } catch (error) {
    if (request !== requests) return;
    stopCamera();
    return warn(ERRORS.includes(error.name) ? error.name : "camera_failed", { reason: error });
  }
  camera.stream.getVideoTracks()[0].onended = () => {
    stopCamera();
    warn("camera_gone");
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
      return new Option(label || text("camera_number", { number: i + 1 }), deviceId, false, deviceId === present);
    }),
  );
}

/** The camera's current frame with the current look, as a promise; errors appear on `await`. */
function nextFrame() {
  const drawn = createImageBitmap(video).then((bitmap) => {
    const mirror = $("mirror").checked;
    return ask("frame", { bitmap, mirror, look: look(), model: chosen("model") });
  });
  drawn.catch(() => {}); // otherwise the browser reports an error when the camera is turned off
  return drawn;
}

async function runCamera(stream) {
  await ask("start");
  let next = nextFrame();
  let frames = 0;
  let since = performance.now();
  let spent = { network: 0, total: 0 };
  while (camera.stream === stream) {
    try {
      const drawn = await next;
      if (camera.stream !== stream) return;
      next = nextFrame(); // the worker computes this frame while the last one is shown
      show(drawn);
      if ($("figure").hidden) {
        camera.changed();
        say("live");
      }
      frames++;
      spent.network += drawn.network;
      spent.total += drawn.total;
      const passed = performance.now() - since;
      if (passed > 1000) {
        const rate = (1000 * frames) / passed;
        if (rate < SLOW && drawn.width > 640) {
          say("slow", {}, "off"); // not read out every second
        }
        const { width, height } = drawn;
        const [network, total] = [ms(spent.network / frames), ms(spent.total / frames)];
        write($("times"), "camera_times", { rate: rate.toFixed(1), width, height, network, total });
        [frames, since, spent] = [0, performance.now(), { network: 0, total: 0 }];
      }
    } catch (error) {
      stopCamera();
      return warn("camera_stopped", { reason: error });
    }
    await new Promise(requestAnimationFrame);
  }
}

export function stopCamera() {
  requests++;
  camera.recorder?.stop();
  if (camera.stream) stop(camera.stream);
  camera.stream = null;
  video.srcObject = null;
  if (source() === "camera") say("camera_is_off");
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

// Recording, without sound

export const canRecord = () => Boolean(window.MediaRecorder && $("result").captureStream);

/** Start a recording, or stop the running one; a stopped recording is saved. */
export function record() {
  if (camera.recorder) return camera.recorder.stop();
  const type = VIDEO_TYPES.find((each) => MediaRecorder.isTypeSupported(each));
  const recorder = new MediaRecorder($("result").captureStream(), {
    mimeType: type,
    videoBitsPerSecond: 8e6,
  });
  const name = `camera_${chosen("mode")}.${type.match(/webm|mp4/)}`;
  const parts = [];
  const begun = performance.now();
  const tick = () => {
    const seconds = Math.floor((performance.now() - begun) / 1000);
    const time = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, 0)}`;
    write($("record"), "stop_recording", { time });
  };
  const clock = setInterval(tick, 500);
  recorder.ondataavailable = ({ data }) => parts.push(data);
  recorder.onerror = ({ error }) => warn("recording_failed", { reason: error });
  recorder.onstop = () => {
    clearInterval(clock);
    camera.recorder = null;
    write($("record"), "record");
    download(new Blob(parts, { type }), name);
    camera.changed();
  };
  recorder.start(1000); // one part per second, so that a long video is not held in one piece
  camera.recorder = recorder;
  tick();
  camera.changed();
}
