"""Names, versions, aliases, policies and their history in one database."""
