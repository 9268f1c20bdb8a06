"""Matches versions with a host and a request, and compares two versions; pure."""
