"""What runs where a model is deployed: each module is also a file of the checkpoints it runs."""
