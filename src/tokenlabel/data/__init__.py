"""Samples, augmentation and loaders."""
