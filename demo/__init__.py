"""Things to try the platform on: generated phantoms, and the sample images that installed packages carry."""
