"""What the slices' tables have in common: their metadata, and how names are stored."""

from typing import Final

from sqlalchemy import MetaData, Text
from sqlalchemy.orm import DeclarativeBase

NAMING: Final = {
    "pk": "%(table_name)s_pkey",
    "ck": "%(table_name)s_%(constraint_name)s",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "ix": "%(table_name)s_%(column_0_N_name)s_idx",
}


# Names are compared byte by byte, whatever the database's language: quick, and everywhere alike.
Name: Final = Text(collation="C")


class Base(DeclarativeBase):
    """Declarative models are the schema; they are used as Core tables, never as ORM objects."""

    metadata = MetaData(naming_convention=NAMING)
