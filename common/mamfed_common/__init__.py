"""The science and the contract that every role of mamfed shares."""

__version__ = "0.1.0"
