"""What people read of artifacts and versions: cards, web pages, API."""
