"""w2sd: a test bench for weak-to-strong generalisation and deception."""

__version__ = "0.1.0"
