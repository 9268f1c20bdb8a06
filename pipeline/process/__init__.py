"""Child processes and the host they run on."""
