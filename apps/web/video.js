// Videos: the worker draws every frame, and the sound stays. With WebCodecs a video is decoded and
// encoded as fast as this device can, also in a hidden tab. Without, it is played once and recorded.

import { show } from "./figure.js";
import { ask } from "./page.js";
import { fileFormat, hasCodecs, library, sampleOf, startRecorder } from "./recording.js";
import { Problem } from "./strings.js";

const VIDEO_NAME = /\.(mp4|m4v|mov|webm|mkv)$/i;
const POSTER_TIME = 1; // seconds into the video at which its picture is taken, if it is long enough
const POSTER_FRACTION = 0.25; // of the duration, for short videos

export const isVideo = ({ type, name }) => type.startsWith("video/") || VIDEO_NAME.test(name);

const happens = (element, name) =>
  new Promise((resolve, reject) => {
    element.addEventListener(name, resolve, { once: true });
    element.addEventListener("error", () => reject(element.error), { once: true });
  });

/** A <video> of the file, loaded; its address is to be revoked. */
async function load(file) {
  const video = Object.assign(document.createElement("video"), { playsInline: true, preload: "auto" });
  const loaded = happens(video, "loadeddata");
  video.src = URL.createObjectURL(file);
  try {
    await loaded;
    if (!video.videoWidth) throw new Error("no picture");
  } catch {
    URL.revokeObjectURL(video.src);
    throw new Problem("unreadable_video", { name: file.name });
  }
  return video;
}

/** One picture of a video, and its duration in seconds: { poster: a JPEG, seconds }. */
export async function openVideo(file) {
  const video = await load(file);
  try {
    const seconds = Number.isFinite(video.duration) ? video.duration : null;
    const sought = happens(video, "seeked");
    video.currentTime = Math.min(POSTER_TIME, POSTER_FRACTION * (seconds ?? POSTER_TIME));
    await sought;
    const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
    canvas.getContext("2d").drawImage(video, 0, 0);
    return { poster: await canvas.convertToBlob({ type: "image/jpeg", quality: 0.95 }), seconds };
  } finally {
    URL.revokeObjectURL(video.src);
  }
}

/** The effect of a video: none has a transparent background, so a cut-out gets a green one. */
const opaque = (look) => (look.mode === "cutout" ? { mode: "replace", background: [0, 177, 64] } : look);

/**
 * Draw every frame of a video with an effect.
 *
 * @param settings { look, model }, as for a camera's frames
 * @param progress is called with the fraction that is done, 0..1
 * @param signal AbortSignal that cancels: then an AbortError is thrown
 * @returns { blob, ending, silent }: the file, the ending of its name, and whether its sound was lost
 */
export async function convert(file, settings, progress, signal) {
  const { model } = settings;
  const draw = async (bitmap) => {
    const look = opaque(settings.look);
    const drawn = await ask("frame", { bitmap, mirror: false, look, lookCloser: true, model });
    show(drawn);
    return drawn;
  };
  await ask("start");
  return (hasCodecs() ? encode : playAndRecord)(file, draw, progress, signal);
}

async function encode(file, draw, progress, signal) {
  const media = await library();
  const input = new media.Input({ source: new media.BlobSource(file), formats: media.ALL_FORMATS });
  const track = await input.getPrimaryVideoTrack().catch(() => null);
  if (!track || !(await track.canDecode())) throw new Problem("unreadable_video", { name: file.name });
  const size = { width: even(await track.getDisplayWidth()), height: even(await track.getDisplayHeight()) };
  const sound = await input.getPrimaryAudioTrack();
  const found = await fileFormat(media, size, sound && (await sound.getCodec()));
  const output = new media.Output({ format: found.format, target: new media.BufferTarget() });
  const process = async (sample) => {
    const { timestamp, duration } = sample;
    return sampleOf(media, await draw(sample.toVideoFrame()), timestamp, duration);
  };
  const quality = media.QUALITY_HIGH;
  const video = { codec: found.video, quality, ...size, fit: "fill", forceTranscode: true };
  const conversion = await media.Conversion.init({
    input,
    output,
    tracks: "primary",
    video: { ...video, allowTransformationMetadata: false, process },
    audio: { quality },
    tags: {}, // neither place nor device
    showWarnings: false,
  });
  if (!conversion.isValid) throw new Problem("no_encoder", size);
  conversion.onProgress = progress;
  const cancel = () => conversion.cancel();
  signal.addEventListener("abort", cancel, { once: true });
  try {
    signal.throwIfAborted();
    await conversion.execute();
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  } finally {
    signal.removeEventListener("abort", cancel);
    input.dispose();
  }
  const silent = conversion.discardedTracks.some(({ track: lost }) => lost.type === "audio");
  return { blob: new Blob([output.target.buffer], { type: found.type }), ending: found.ending, silent };
}

const even = (length) => Math.max(2, length - (length % 2)); // H.264 has even sizes only

async function playAndRecord(file, draw, progress, signal) {
  if (!window.MediaRecorder) throw new Problem("no_encoder", {});
  const video = await load(file);
  const context = new AudioContext();
  const speaker = context.createMediaStreamDestination();
  context.createMediaElementSource(video).connect(speaker);
  const next = async () => draw(await createImageBitmap(video));
  let recorder;
  const pause = () => {
    // A hidden tab draws nothing that could be recorded.
    if (document.hidden) video.pause(), recorder.pause();
    else video.play(), recorder.resume();
  };
  try {
    await next(); // the canvas gets the video's size
    recorder = startRecorder(speaker.stream.getAudioTracks());
    document.addEventListener("visibilitychange", pause);
    await video.play();
    while (!video.ended) {
      signal.throwIfAborted();
      await next();
      await recorder.add();
      progress(video.currentTime / video.duration);
      await new Promise(requestAnimationFrame);
    }
    return { blob: await recorder.stop(), ending: recorder.ending, silent: false };
  } finally {
    document.removeEventListener("visibilitychange", pause);
    video.pause();
    recorder?.stop().catch(() => {});
    context.close();
    URL.revokeObjectURL(video.src);
  }
}
