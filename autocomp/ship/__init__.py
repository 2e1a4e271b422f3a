"""From a study to a model in use: choose a trial, export it, verify it, load it."""
