"""Real handwritten digits, composed into scenes: the main job in minutes."""
