"""What a student learns from: one file a method."""
