"""Model definitions that Transformers lacks."""
