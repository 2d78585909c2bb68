"""`picopay bench`."""
def bench() -> None:
    """tbd"""
