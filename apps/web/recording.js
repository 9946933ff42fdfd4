// Recording drawn frames and sound as a video file that knows its duration. WebCodecs encode, and
// mediabunny writes the file; where a browser has no WebCodecs, MediaRecorder does both.

import { $ } from "./page.js";
import { Problem } from "./strings.js";

export const library = () => import("./libraries/mediabunny.mjs");
export const hasCodecs = () => Boolean(window.VideoEncoder && window.VideoDecoder);
export const canRecord = () => hasCodecs() || Boolean(window.MediaRecorder && $("result").captureStream);

// Types of a MediaRecorder's file, without and with sound; the first supported one is used.
const RECORDER_TYPES = [
  ["video/webm;codecs=vp9", "video/webm;codecs=vp9,opus"],
  ["video/webm;codecs=vp8", "video/webm;codecs=vp8,opus"],
  ["video/mp4", "video/mp4"],
];
const BITS = 8e6; // of a MediaRecorder's video, per second
const PLAYED_EVERYWHERE = ["aac", "mp3"]; // sound in an mp4

/**
 * What a file can be written as in this browser: mp4 if everyone can play it, else WebM.
 *
 * @param size { width, height } in pixels
 * @param sound codec that can be copied; "" if the sound is to be encoded; null without sound
 * @returns { format, type, ending, video, audio }: format of mediabunny, MIME type and ending of the
 *   file, and the codecs
 */
export async function fileFormat(media, size, sound) {
  const canEncode = async (codecs) => media.getFirstEncodableVideoCodec(codecs, size);
  const audio = sound || ((await media.canEncodeAudio("aac")) ? "aac" : "opus");
  const silent = sound === null;
  if ((silent || PLAYED_EVERYWHERE.includes(audio)) && (await canEncode(["avc"]))) {
    const format = new media.Mp4OutputFormat();
    return { format, type: "video/mp4", ending: "mp4", video: "avc", audio };
  }
  const video = await canEncode(["vp9", "vp8"]);
  if (!video) throw new Problem("no_encoder", size);
  return { format: new media.WebMOutputFormat(), type: "video/webm", ending: "webm", video, audio: "opus" };
}

/**
 * Start to record.
 *
 * @param track microphone's MediaStreamTrack, or null
 * @returns { add(drawn, time), stop(), ending }: `add` takes each drawn frame and when it was taken,
 *   in ms as performance.now(); `stop` resolves to the file, a Blob
 */
export async function startRecording(track) {
  return hasCodecs() ? startEncoder(track) : startRecorder(track ? [track] : []);
}

async function startEncoder(track) {
  const media = await library();
  const { width, height } = $("result");
  const found = await fileFormat(media, { width, height }, track ? "" : null);
  const target = new media.BufferTarget();
  const output = new media.Output({ format: found.format, target });
  const quality = media.QUALITY_HIGH;
  const frames = new media.VideoSampleSource({ codec: found.video, quality, sizeChangeBehavior: "contain" });
  output.addVideoTrack(frames);
  if (track) {
    output.addAudioTrack(new media.MediaStreamAudioTrackSource(track, { codec: found.audio, quality }));
  }
  await output.start();
  const begun = performance.now();
  let last = -1; // seconds of the last frame
  let added = Promise.resolve();
  return {
    ending: found.ending,
    add(drawn, time) {
      last = Math.max((time - begun) / 1000, last + 0.001, 0);
      added = addFrame(media, frames, drawn, last);
      return added;
    },
    async stop() {
      await added.catch(() => {}); // `add` has rejected already
      await output.finalize();
      return new Blob([target.buffer], { type: found.type });
    },
  };
}

/** A drawn frame as mediabunny's sample; the caller closes it. */
export function sampleOf(media, { pixels, width, height }, timestamp, duration = 0) {
  const size = { format: "RGBA", codedWidth: width, codedHeight: height };
  return new media.VideoSample(pixels, { ...size, timestamp, duration });
}

async function addFrame(media, frames, drawn, seconds) {
  const sample = sampleOf(media, drawn, seconds);
  await frames.add(sample).finally(() => sample.close());
}

/** Record the shown canvas, with these sound tracks, by MediaRecorder: see `startRecording`. */
export function startRecorder(tracks) {
  const types = RECORDER_TYPES.map((pair) => pair[tracks.length ? 1 : 0]);
  const type = types.find((each) => MediaRecorder.isTypeSupported(each));
  const stream = new MediaStream([...$("result").captureStream().getVideoTracks(), ...tracks]);
  const recorder = new MediaRecorder(stream, { mimeType: type, videoBitsPerSecond: BITS });
  const parts = [];
  let wrong = null;
  recorder.ondataavailable = ({ data }) => parts.push(data);
  recorder.onerror = ({ error }) => (wrong = error);
  const stopped = new Promise((resolve) => (recorder.onstop = resolve));
  recorder.start(1000); // one part per second, so that a long video is not held in one piece
  return {
    ending: type.match(/webm|mp4/)[0],
    add: async () => {
      if (wrong) throw wrong;
    },
    pause: () => recorder.state === "recording" && recorder.pause(),
    resume: () => recorder.state === "paused" && recorder.resume(),
    async stop() {
      if (recorder.state !== "inactive") recorder.stop();
      await stopped;
      return withDuration(new Blob(parts, { type: type.split(";")[0] }));
    },
  };
}

/** The same video, written again with its duration: MediaRecorder leaves it out. */
async function withDuration(blob) {
  const media = await library();
  const input = new media.Input({ source: new media.BlobSource(blob), formats: media.ALL_FORMATS });
  const mp4 = blob.type === "video/mp4";
  const format = mp4 ? new media.Mp4OutputFormat() : new media.WebMOutputFormat();
  const output = new media.Output({ format, target: new media.BufferTarget() });
  const conversion = await media.Conversion.init({ input, output, showWarnings: false });
  await conversion.execute();
  return new Blob([output.target.buffer], { type: blob.type });
}
