"""The first charge of a newcomer."""

from uuid import uuid4

import httpx2


async def test_a_charge_and_its_replay_are_the_same_bytes(client: httpx2.AsyncClient) -> None:
    assert (await client.post("/v1/users", json={"id": 1})).status_code == 201
    deposit = await client.post("/v1/users/1/deposits", json={"amount": 1000, "currency": "USD"})
    assert deposit.status_code == 201
    body = {"user_id": 1, "amount": 100.0, "currency": "USD"}
    headers = {"Idempotency-Key": str(uuid4())}

    first = await client.post("/charge", json=body, headers=headers)
    again = await client.post("/charge", json=body, headers=headers)

    assert first.status_code == 200
    assert first.json()["new_balance"] == 900
    assert b'"new_balance":900.00' in first.content
    assert again.content == first.content
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
