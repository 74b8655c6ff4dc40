"""mirror: exact, verifiable copies of whole sites, kept somewhere else, and brought back when it matters."""

__version__ = "0.1.0"
