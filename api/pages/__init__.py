"""The web pages: rendered on the server, without scripts, with nothing from elsewhere."""
