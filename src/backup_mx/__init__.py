"""backup-mx: a store-and-forward second MX. See docs/how-it-works.md."""

__version__ = "0.1.0"
