"""Charge a user once, whatever dies on the way.

The idempotency key is on disk before the request is sent. Run it again after a crash, at whatever
moment, and it goes on with the same key: the money is taken once.

    PICOPAY_URL=http://localhost:8000 PICOPAY_API_KEY=… python examples/charge.py 1 19.90 USD
"""

import os
import sys
from pathlib import Path

from picopay.client.errors import Declined, PicoPayError
from picopay.client.model import new_key
from picopay.client.sync import Client


def main(user_id: int, amount: str, currency: str) -> int:
    kept = Path(os.environ.get("KEY_FILE", "charge.key"))
    if not kept.exists():
        kept.write_text(new_key())
    key = kept.read_text()
    with Client(os.environ["PICOPAY_URL"], api_key=os.environ["PICOPAY_API_KEY"]) as picopay:
        try:
            charge = picopay.charges.create(
                user_id=user_id, amount=amount, currency=currency, idempotency_key=key
            )
        except Declined as declined:
            kept.unlink()
            print(f"declined: {declined.detail}")
            return 1
        except PicoPayError as error:
            print(f"{error}: run it again, the key is kept")
            return 2
    kept.unlink()
    again = ", as was known already" if charge.replayed else ""
    print(f"charged {charge.amount.text} {currency}{again}; {charge.new_balance.text} are left")
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
