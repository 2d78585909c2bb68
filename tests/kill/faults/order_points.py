"""Named points of an order's saga: in the server that hears of it, in the worker that moves it."""

from event_points import Install, strike_after, strike_before

ASKING = "picopay.orders.asking"
PAYMENTS = "picopay.orders.payments"
SERVICE = "picopay.orders.service"


def around(step: str, module: str, name: str) -> dict[str, Install]:
    return {
        f"before_{step}": strike_before(module, name),
        f"after_{step}": strike_after(module, name),
    }


IN_SERVER: dict[str, Install] = {
    **around("placing", SERVICE, "place_batch"),
    **around("paying", PAYMENTS, "settle_together"),
    **around("settling", PAYMENTS, "settle"),
    **around("canceling", SERVICE, "cancel"),
}
IN_WORKER: dict[str, Install] = {
    **around("asking", ASKING, "ask_together"),
    # The provider has made the payment by then.
    **around("binding", ASKING, "bind_together"),
    **around("timing_out", PAYMENTS, "time_out"),
    # The provider has given the money back by then.
    **around("refunding", PAYMENTS, "refunded"),
}
