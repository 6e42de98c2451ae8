"""The demo as a Space: the page of `hf-audioformer demo`, for the checkpoint that the Space's variable MODEL names."""

import os

from hf_audioformer.demo import serve

serve(os.environ.get("MODEL", "MIT/ast-finetuned-audioset-10-10-0.4593"))
