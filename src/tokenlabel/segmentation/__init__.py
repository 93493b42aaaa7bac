"""Dense prediction: semantic segmentation on the backbones that token labels have trained."""
