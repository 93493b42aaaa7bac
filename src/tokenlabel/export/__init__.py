"""Trained models in forms that need less than this package, or nothing of it."""
