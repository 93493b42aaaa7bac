"""Real handwritten digits, composed into scenes: the demo."""
