"""Recipes: one file for each thing to train, encode or measure, started from the command line."""
