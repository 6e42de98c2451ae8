"""Settings, launching and the Trainer of hf_audioformer."""
