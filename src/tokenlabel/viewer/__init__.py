"""A local page to browse images with their labels."""
