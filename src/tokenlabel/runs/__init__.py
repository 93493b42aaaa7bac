"""What a run is on disk: recipe, folder, checkpoints, results."""
