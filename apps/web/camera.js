// The camera: the worker processes each frame; the shown frames can be recorded as a video, with the
// microphone's sound if the visitor wants it.

import { show } from "./figure.js";
import { look } from "./look.js";
import { text, write } from "./language.js";
import { $, ask, chosen, clock, ms, say, source, warn } from "./page.js";
import { canRecord, startRecording } from "./recording.js";
import { download } from "./save.js";
import { Problem } from "./strings.js";

export { canRecord };

const ERRORS = ["NotAllowedError", "NotFoundError", "NotReadableError"]; // with their own sentence
const AHEAD = 3; // frames in work while one is shown: read, in the network, in its effect
const SLOW = 8; // frames/s; below, a smaller size is suggested
const video = Object.assign(document.createElement("video"), { muted: true, playsInline: true });

/** `stream` while the camera is on, `recording` while it records; `changed` is called on changes. */
export const camera = { stream: null, recording: null, changed() {} };
let requests = 0; // how often the camera was turned on or off: only the last request counts

const stop = (stream) => stream.getTracks().forEach((track) => track.stop());

export async function startCamera() {
  if (!navigator.mediaDevices) {
    return warn("no_camera_here");
  }
  const [width, height] = $("size").value.split(" × ").map(Number);
  const wanted = { width: { ideal: width }, height: { ideal: height } };
  if (facing) wanted.facingMode = { ideal: facing };
  else if ($("device").value) wanted.deviceId = { exact: $("device").value };
  stopCamera();
  const request = requests;
  say("camera_waiting");
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ video: wanted });
    if (request !== requests || document.hidden) return stop(stream);
    camera.stream = stream;
    if (!readsTracks()) {
      video.srcObject = stream;
      await video.play();
    }
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

let facing = null; // "user" or "environment", if the visitor has turned a phone's camera

/** Change between a phone's front and back camera; the picture is mirrored in front only. */
export function turnCamera() {
  const present = camera.stream?.getVideoTracks()[0].getSettings().facingMode ?? facing ?? "user";
  facing = present === "environment" ? "user" : "environment";
  $("mirror").checked = facing === "user";
  return startCamera();
}

/** Use the chosen camera of the list. */
export function chooseCamera() {
  facing = null;
  return startCamera();
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

// With this the frames also come while the tab is hidden; without, the shown <video> gives them.
const readsTracks = () => Boolean(window.MediaStreamTrackProcessor);

/** A function that resolves to the camera's next frame; `close` ends it. */
function framesOf(stream) {
  if (!readsTracks()) return Object.assign(() => createImageBitmap(video), { close() {} });
  const [track] = stream.getVideoTracks();
  const reader = new MediaStreamTrackProcessor({ track, maxBufferSize: 1 }).readable.getReader();
  const next = async () => {
    const { value } = await reader.read();
    if (!value) throw new Problem("camera_gone");
    return value;
  };
  return Object.assign(next, { close: () => reader.cancel().catch(() => {}) });
}

/** The camera's next frame with the current look, as a promise; errors appear on `await`. */
function drawNext(nextFrame) {
  const drawn = nextFrame().then(async (bitmap) => {
    const time = performance.now();
    const settings = { mirror: $("mirror").checked, look: look(), model: chosen("model") };
    return { time, ...(await ask("frame", { bitmap, ...settings, lookCloser: false })) };
  });
  drawn.catch(() => {}); // otherwise the browser reports an error when the camera is turned off
  return drawn;
}

async function runCamera(stream) {
  await ask("start");
  const nextFrame = framesOf(stream);
  const next = Array.from({ length: AHEAD }, () => drawNext(nextFrame));
  let frames = 0;
  let since = performance.now();
  let spent = { network: 0, total: 0 };
  while (camera.stream === stream) {
    try {
      const drawn = await next.shift();
      if (camera.stream !== stream) break;
      next.push(drawNext(nextFrame));
      show(drawn);
      await camera.recording?.add(drawn);
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
      if (camera.stream !== stream) break;
      stopCamera();
      warn("camera_stopped", { reason: error });
    }
    if (!readsTracks()) await new Promise(requestAnimationFrame);
  }
  nextFrame.close();
}

export function stopCamera() {
  requests++;
  endRecording();
  if (camera.stream) stop(camera.stream);
  camera.stream = null;
  video.srcObject = null;
  if (source() === "camera") say("camera_is_off");
  camera.changed();
}

let paused = false;
document.addEventListener("visibilitychange", () => {
  if (document.hidden && camera.stream) {
    if (camera.recording && readsTracks()) return; // the recording goes on
    const recorded = Boolean(camera.recording);
    paused = !recorded; // so that the sentence stays
    stopCamera();
    if (recorded) warn("recording_hidden");
  } else if (!document.hidden && paused) {
    paused = false;
    if (source() === "camera") startCamera();
  }
});

/** Start a recording, or end and save the running one. */
export async function record() {
  if (camera.recording) return endRecording();
  const starting = { add: async () => {}, end() {} };
  camera.recording = starting;
  camera.changed();
  const name = `camera_${chosen("mode")}`;
  let microphone = null;
  let recording = null;
  try {
    if ($("sound").checked) microphone = await navigator.mediaDevices.getUserMedia({ audio: true });
    recording = await startRecording(microphone?.getAudioTracks()[0] ?? null);
  } catch (error) {
    const refused = error.name === "NotAllowedError" || error.name === "NotFoundError";
    if (refused) warn("no_microphone");
    else warn("recording_failed", { reason: error });
  }
  const wanted = camera.recording === starting; // otherwise it was ended meanwhile
  if (wanted) camera.recording = null;
  if (wanted && recording) {
    camera.recording = recordingOf(recording, microphone, `${name}.${recording.ending}`);
  } else {
    recording?.stop().catch(() => {}); // without a frame there is no video
    if (microphone) stop(microphone);
  }
  camera.changed();
}

/** A running recording with its clock: { add(drawn), end() }. */
function recordingOf(recording, microphone, name) {
  const begun = performance.now();
  const tick = () => {
    write($("record"), "stop_recording", { time: clock((performance.now() - begun) / 1000) });
  };
  const timer = setInterval(tick, 500);
  tick();
  return {
    async add(drawn) {
      await recording.add(drawn, drawn.time).catch((error) => {
        endRecording();
        warn("recording_failed", { reason: error });
      });
    },
    async end() {
      clearInterval(timer);
      write($("record"), "record");
      try {
        download(await recording.stop(), name);
      } catch (error) {
        warn("recording_failed", { reason: error });
      }
      if (microphone) stop(microphone);
    },
  };
}

function endRecording() {
  const { recording } = camera;
  camera.recording = null;
  recording?.end();
  camera.changed();
}
