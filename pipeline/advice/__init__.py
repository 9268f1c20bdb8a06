"""What would make a recipe or a version better; pure."""
