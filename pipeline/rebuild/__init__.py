"""Which published engines no longer match the world around them, and what rebuilding them would take."""
