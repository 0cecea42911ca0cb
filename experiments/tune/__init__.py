"""A search for better options with Optuna: ``python -m experiments.tune mnist_cnn --trials 20``."""
