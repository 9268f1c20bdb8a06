"""Notifications: an outbox in the registry, which `enginery registry notify` delivers."""
