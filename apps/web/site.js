// What this site has; `python -m apps.web` writes these values. The service worker reads them too.
self.SITE = { version: "development", files: [], networks: {} };
