"""The registry in a browser and over HTTP: pages, a JSON API, health and metrics."""
