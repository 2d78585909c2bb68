"""Creates the baseline's tables and its users, with more money than a benchmark can spend."""

import argparse

from models import Base, SessionLocal, User, engine
from sqlalchemy import insert


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--balance", type=int, default=10**12, help="of each user, in cents")
    arguments = parser.parse_args()
    Base.metadata.create_all(engine)
    users = range(1, arguments.users + 1)
    with SessionLocal.begin() as session:
        session.execute(insert(User), [{"id": n, "balance": arguments.balance} for n in users])


if __name__ == "__main__":
    main()
