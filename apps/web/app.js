// The page as an app: it works without a network after the first visit, and gives files to other apps.

import "./site.js";

const SHARED = "shared"; // as in sw.js

/** What the site has: { version, files, networks }. */
export const { SITE } = self;

/** Keep the page's files on this device from now on. */
export function keepOffline(backend) {
  // A private window may refuse: then the page works as before, with a network.
  navigator.serviceWorker?.register(`sw.js?backend=${backend}`, { updateViaCache: "none" }).catch(() => {});
}

/** The files that another app has shared with this one; they are given once. */
export async function takeShared() {
  const cache = await caches.open(SHARED);
  const files = [];
  for (const request of await cache.keys()) {
    const response = await cache.match(request);
    const type = response.headers.get("Content-Type");
    files.push(new File([await response.blob()], decodeURIComponent(response.headers.get("X-Name")), { type }));
  }
  await caches.delete(SHARED);
  return files;
}

/** Whether this browser can hand files of this type to other apps. */
export function canShare(type) {
  const file = new File([], "a", { type });
  return Boolean(navigator.canShare?.({ files: [file] }));
}

/** Hand a file to another app, which the visitor chooses. */
export async function send(blob, name) {
  try {
    await navigator.share({ files: [new File([blob], name, { type: blob.type })] });
  } catch (error) {
    if (error.name !== "AbortError") throw error; // the visitor has closed the sheet
  }
}
