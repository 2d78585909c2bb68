"""What can go wrong with the embedded servers, said in one clear sentence."""


class EmbeddedError(Exception):
    """The first line is the sentence; lines of a server's log may follow."""
