"""AudioFormer: configuration, models, feature extractor and codec, in files that can travel to the Hub as code."""
