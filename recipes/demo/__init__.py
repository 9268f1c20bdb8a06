"""The demo's source checkpoint, its texts, and the scripts that make both."""
