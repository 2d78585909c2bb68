"""PicoPay: a payments core that charges exactly once, on a double-entry ledger."""

__version__ = "0.1.0"
