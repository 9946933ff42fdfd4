"""The library over HTTP: `portraitnet serve`, or `python -m apps.server` in a clone."""
