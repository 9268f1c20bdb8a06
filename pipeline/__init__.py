"""Plan a recipe, run it, gate it, publish it."""
