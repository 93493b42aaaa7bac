"""Label maps and predictions as pictures."""
