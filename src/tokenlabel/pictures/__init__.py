"""Everything that draws: label maps, predictions, relevance, curves, health, segmentation, HTML."""
