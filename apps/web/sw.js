// The service worker: after the first visit the page needs no network. It keeps the page's files, the
// weights too, and drops them when the site has another version. It also receives shared photos.

importScripts("site.js");
const { version, files } = self.SITE;
const CACHE = `page ${version}`;
const SHARED = "shared"; // cache of the files that another app has shared: main.js empties it
const PATIENCE = 2000; // ms for the question whether the site has another version
const BACKEND = new URL(location).searchParams.get("backend");

/** Whether the page needs a file from the start: not the other backend, not a network of choice. */
function isNeeded(address) {
  if (address.startsWith("networks/")) return false;
  return !address.startsWith("runtime/") || address.includes("jspi") === (BACKEND === "webgpu");
}

self.addEventListener("install", (event) => event.waitUntil(install()));

async function install() {
  const cache = await caches.open(CACHE);
  const kept = (await cache.keys()).map(({ url }) => url); // by network.js: the large ones
  const missing = files.filter((address) => isNeeded(address) && !kept.includes(new URL(address, location).href));
  // The server is asked whether a file has changed; most are in the browser's own cache.
  await cache.addAll(missing.map((address) => new Request(address, { cache: "no-cache" })));
  await self.skipWaiting();
}

self.addEventListener("activate", (event) => event.waitUntil(activate()));

async function activate() {
  for (const name of await caches.keys()) {
    if (name.startsWith("page ") && name !== CACHE) await caches.delete(name);
  }
  await self.clients.claim();
}

self.addEventListener("fetch", (event) => {
  const { request } = event;
  if (!request.url.startsWith(self.registration.scope)) return;
  const address = request.url.slice(self.registration.scope.length).split(/[?#]/)[0] || "index.html";
  if (request.method === "POST" && address === "receive") event.respondWith(receive(request));
  if (request.method === "GET" && files.includes(address)) event.respondWith(answer(request, address));
});

async function answer(request, address) {
  if (request.mode === "navigate" && (await isOutdated())) await caches.delete(CACHE);
  const cache = await caches.open(CACHE);
  const kept = await cache.match(address, { ignoreVary: true });
  if (kept) return kept;
  const response = await fetch(request);
  if (response.ok) await cache.put(address, response.clone());
  return response;
}

/** Whether the site has another version now; without a network it stays. */
async function isOutdated() {
  try {
    const response = await fetch("site.js", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    return response.ok && !(await response.text()).includes(JSON.stringify(version));
  } catch {
    return false;
  }
}

/** Keep the files that another app has shared, until the page takes them. */
async function receive(request) {
  const cache = await caches.open(SHARED);
  const shared = (await request.formData()).getAll("files");
  for (const [i, file] of shared.entries()) {
    const headers = { "Content-Type": file.type, "X-Name": encodeURIComponent(file.name) };
    await cache.put(`shared/${i}`, new Response(file, { headers }));
  }
  return Response.redirect("./?shared", 303);
}
