"""What to build: the recipe schema, the formats, loading, and the library of recipes."""
