"""What the AST of Transformers lacks: loading at any clip length and stride, and its front end."""
