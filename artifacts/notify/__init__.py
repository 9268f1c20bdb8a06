"""Notifications: an outbox in the registry, which `enginery notify` delivers."""
