"""`picopay demo`."""
def demo() -> None:
    """tbd"""
