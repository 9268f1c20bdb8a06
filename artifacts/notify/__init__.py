"""Telling others of events: an outbox in the registry, emptied by whoever runs `enginery registry notify`."""
