"""How good a trained model is: metrics, benchmarks and what is written about them."""
