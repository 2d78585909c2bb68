"""Add up what a user was charged: every charge, page after page, exactly.

PICOPAY_URL=http://localhost:8000 PICOPAY_API_KEY=… python examples/paginate.py 1
"""

import os
import sys
from collections import defaultdict
from decimal import Decimal

from picopay.client.sync import Client


def main(user_id: int) -> None:
    sums: dict[str, Decimal] = defaultdict(Decimal)
    charges = 0
    with Client(os.environ["PICOPAY_URL"], api_key=os.environ["PICOPAY_API_KEY"]) as picopay:
        for charge in picopay.charges.list(user_id=user_id, limit=2):
            sums[charge.amount.currency] += charge.amount.major - charge.refunded.major
            charges += 1
    print(f"{charges} charges")
    for currency, total in sorted(sums.items()):
        print(f"{total} {currency}")


if __name__ == "__main__":
    main(int(sys.argv[1]))
