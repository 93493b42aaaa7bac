"""One recipe per published result."""
