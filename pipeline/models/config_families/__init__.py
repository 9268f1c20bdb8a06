"""What config.json of each family says, one file per family: the file is the registration."""
