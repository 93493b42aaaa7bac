"""What turns images into label maps."""
