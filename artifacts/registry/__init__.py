"""Names, versions, aliases and what was decided about them, in one database."""
