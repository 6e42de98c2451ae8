"""A web page on which anybody can hear what a classifier hears: the model's side of it, and the page."""

from .listener import HeardFile, Listener
from .page import demo_page, serve

__all__ = ["HeardFile", "Listener", "demo_page", "serve"]
