"""The side of the child process: its entry, and the table of what makes each kind of step."""
