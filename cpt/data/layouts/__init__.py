"""From files to a list of images."""
