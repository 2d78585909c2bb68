#!/usr/bin/env bash
# Walks the whole API of a running server with curl, and says of each step whether it was answered
# as it should be. Exits 1 if any was not. Needs bash, curl and openssl. For a server in development,
# with the fake provider: it makes users, charges and orders, and lets the provider pay.
#
#   scripts/test_api.sh                          # the server of `make run`
#   scripts/test_api.sh http://localhost:8001    # or PICOPAY_URL
#
# API key and secrets come from APP_API_KEY, ADMIN_SECRET and PAYMENT_WEBHOOK_SECRET, or else from
# the data directory, PICOPAY_DATA_DIR (.picopay). Where TRANSACTION_WEBHOOK_SECRET is set, the
# transaction webhook is signed with it. Of several secrets the first one signs.
set -uo pipefail

URL=${1:-${PICOPAY_URL:-http://localhost:8000}}
DATA=${PICOPAY_DATA_DIR:-.picopay}
API_KEY=${APP_API_KEY:-$(cat "$DATA/api_key" 2>/dev/null)}
ADMIN=${ADMIN_SECRET:-$(cat "$DATA/admin_secret" 2>/dev/null)}
CALLBACKS=${PAYMENT_WEBHOOK_SECRET:-$(cat "$DATA/payment_webhook_secret" 2>/dev/null)}
WEBHOOKS=${TRANSACTION_WEBHOOK_SECRET:-}
RUN=$(openssl rand -hex 6)   # what this run makes is its own
USER_ID=$((16#$RUN))
PATIENCE_SECONDS=60

passed=0 failed=0 STATUS='' BODY=''
KEYED=(-H "X-API-Key: $API_KEY")
ADMINS=(-H "X-Admin-Secret: $ADMIN")

# send METHOD PATH [curl options]: the answer, in STATUS and BODY.
send() {
    local method=$1 path=$2 answer
    shift 2
    answer=$(curl --silent --show-error --max-time 30 -X "$method" "$URL$path" \
        -H 'Content-Type: application/json' -w '\n%{http_code}' "$@") || answer=$'\n000'
    STATUS=${answer##*$'\n'}
    BODY=${answer%$'\n'*}
}

# step TITLE STATUS TEXT METHOD PATH [curl options]: one line, and whether it was as expected.
step() {
    local title=$1 status=$2 text=$3
    shift 3
    send "$@"
    verdict "$title" "$status" "$text" "$1 $2"
}

# Like step, but asks again until the text is there: for what happens in the background.
later() {
    local title=$1 status=$2 text=$3 give_up_at=$((SECONDS + PATIENCE_SECONDS))
    shift 3
    until send "$@" && [[ $STATUS == "$status" && $BODY == *"$text"* ]]; do
        ((SECONDS < give_up_at)) || break
        sleep 0.2
    done
    verdict "$title" "$status" "$text" "$1 $2"
}

verdict() {
    if [[ $STATUS == "$2" && $BODY == *"$3"* ]]; then
        passed=$((passed + 1))
        printf 'PASS  %-44s %s\n' "$1" "$STATUS"
    else
        failed=$((failed + 1))
        printf 'FAIL  %-44s %s, not %s with %s\n      %s\n      %s\n' \
            "$1" "$STATUS" "$2" "${3:-any body}" "$4" "$BODY"
    fi
}

# field NAME: the first value of that name in BODY.
field() { grep -o "\"$1\":\"[^\"]*\"" <<<"$BODY" | head -1 | cut -d'"' -f4; }

# signature SECRETS TEXT: of the text, by the first of the secrets.
signature() { printf %s "$2" | openssl dgst -sha256 -hmac "${1%%,*}" -r | cut -d' ' -f1; }

# uuid N: an idempotency key of this run.
uuid() { printf '%s-0000-4000-8000-%012d' "${RUN:0:8}" "$1"; }

echo "$URL"

step 'the process answers' 200 '{"status":"healthy"}' GET /health
step 'the root' 200 HEALTHY GET /
step 'it is alive' 200 alive GET /livez
step 'it is ready' 200 healthy GET /readyz
step 'its stores' 200 connected GET /healthz
step 'metrics' 200 charge_requests_total GET /metrics
step 'the OpenAPI document' 200 '"openapi"' GET /openapi.json
step 'documentation' 200 html GET /docs
step 'other documentation' 200 html GET /redoc
step 'what a problem means' 200 insufficient-balance GET /problems/insufficient-balance

step 'a user' 201 "\"id\":$USER_ID" POST /v1/users "${KEYED[@]}" -d "{\"id\": $USER_ID}"
step 'the user again' 200 "\"id\":$USER_ID" POST /v1/users "${KEYED[@]}" -d "{\"id\": $USER_ID}"
step 'a deposit' 201 '"new_balance":1000.00' POST "/v1/users/$USER_ID/deposits" "${KEYED[@]}" \
    -H "Idempotency-Key: $RUN" -d '{"amount": 1000, "currency": "USD"}'
step 'the balance' 200 '"balance":1000.00' GET "/v1/users/$USER_ID" "${KEYED[@]}"

CHARGE_BODY="{\"user_id\": $USER_ID, \"amount\": 100.0, \"currency\": \"USD\"}"
step 'a charge' 200 '"new_balance":900.00' POST /charge "${KEYED[@]}" \
    -H "Idempotency-Key: $(uuid 1)" -d "$CHARGE_BODY"
FIRST=$BODY CHARGE=$(field id)
step 'its replay' 200 "$FIRST" POST /charge "${KEYED[@]}" \
    -H "Idempotency-Key: $(uuid 1)" -d "$CHARGE_BODY"
step 'its key for another amount' 422 idempotency-key-reused POST /charge "${KEYED[@]}" \
    -H "Idempotency-Key: $(uuid 1)" -d "${CHARGE_BODY/100.0/200.0}"
step 'a charge beyond the balance' 400 insufficient-balance POST /charge "${KEYED[@]}" \
    -d "${CHARGE_BODY/100.0/5000}"
step 'a charge without an API key' 401 api-key-invalid POST /charge -d "$CHARGE_BODY"
step 'a charge of an unknown user' 404 user-not-found POST /charge "${KEYED[@]}" \
    -d '{"user_id": 9223372036854775807, "amount": 1, "currency": "USD"}'
step 'a key that is no UUID' 400 idempotency-key-invalid POST /charge "${KEYED[@]}" \
    -H 'Idempotency-Key: no-uuid' -d "$CHARGE_BODY"
step 'an amount of no dollars' 422 validation POST /charge "${KEYED[@]}" \
    -d "${CHARGE_BODY/100.0/0.001}"
step 'a batch of charges' 200 '"new_balance":890.00' POST /v1/charges/batch "${KEYED[@]}" \
    -d "{\"charges\": [${CHARGE_BODY/100.0/10}]}"
step 'one charge' 200 "$CHARGE" GET "/v1/charges/$CHARGE" "${KEYED[@]}"
step 'the charges of a user' 200 "$CHARGE" GET "/v1/charges?user_id=$USER_ID" "${KEYED[@]}"
step 'a refund' 201 '"charge_refunded":25.00' POST "/v1/charges/$CHARGE/refunds" "${KEYED[@]}" \
    -H "Idempotency-Key: $(uuid 2)" -d '{"amount": 25}'
step 'more than is left' 409 refund-exceeds-charge POST "/v1/charges/$CHARGE/refunds" \
    "${KEYED[@]}" -H "Idempotency-Key: $(uuid 3)" -d '{"amount": 80}'
step 'the refunds of a charge' 200 '"amount":25.00' GET "/v1/charges/$CHARGE/refunds" "${KEYED[@]}"
step "a user's statement" 200 '"balance_after":915.00' GET "/v1/users/$USER_ID/entries" "${KEYED[@]}"
step 'an account' 200 '"balance":915.00' GET "/v1/accounts/user:$USER_ID" "${KEYED[@]}"
step "an account's statement" 200 merchant: GET "/v1/accounts/user:$USER_ID/entries" "${KEYED[@]}"

step 'a product' 201 "\"stock\":5" POST /admin/products "${ADMINS[@]}" \
    -d "{\"name\": \"Mug $RUN\", \"price\": \"12.50\", \"stock\": 5}"
PRODUCT=$(field id)
step 'a product without the secret' 401 admin-secret-invalid POST /admin/products -d '{}'
step 'a new price' 200 '"price":15.00' PATCH "/admin/products/$PRODUCT" "${ADMINS[@]}" \
    -d '{"price": "15.00"}'
step 'the product, for its keeper' 200 archived_at GET "/admin/products/$PRODUCT" "${ADMINS[@]}"
step 'the product' 200 "$PRODUCT" GET "/products/$PRODUCT"
step 'a search' 200 "$PRODUCT" GET "/products?q=$RUN"

ORDER_BODY="{\"user_email\": \"$RUN@example.com\", \"items\": [{\"product_id\": \"$PRODUCT\", \"quantity\": 2}]}"
step 'an order' 201 '"status":"reserved"' POST /orders -H "Idempotency-Key: $RUN-1" -d "$ORDER_BODY"
FIRST=$BODY ORDER=$(field id)
step 'its replay' 201 "$FIRST" POST /orders -H "Idempotency-Key: $RUN-1" -d "$ORDER_BODY"
step 'its key for another order' 409 idempotency-key-reused POST /orders \
    -H "Idempotency-Key: $RUN-1" -d "${ORDER_BODY/: 2/: 1}"
step 'an order of too many' 409 insufficient-stock POST /orders \
    -H "Idempotency-Key: $RUN-2" -d "${ORDER_BODY/: 2/: 6}"
later 'its payment' 200 payment.created GET "/orders/$ORDER/events"
PAYMENT=$(sed -n 's/.*"event":"payment.created","detail":"\([^"]*\)".*/\1/p' <<<"$BODY")
CALLBACK="{\"payment_id\": \"$PAYMENT\", \"order_id\": \"$ORDER\", \"status\": \"success\"}"
SIGNATURE=$(signature "$CALLBACKS" "$CALLBACK")
step 'a callback' 200 '{"status":"ok"}' POST /payments/callback \
    -H "X-Signature: $SIGNATURE" -d "$CALLBACK"
step 'the callback, forged' 401 signature-invalid POST /payments/callback \
    -H "X-Signature: ${SIGNATURE/[0-9]/x}" -d "$CALLBACK"
step 'the order' 200 "$ORDER" GET "/orders/$ORDER"
step 'canceling a closed order' 409 order-not-cancelable POST "/orders/$ORDER/cancel"
step 'another order' 201 reserved POST /orders -H "Idempotency-Key: $RUN-3" -d "${ORDER_BODY/: 2/: 1}"
send POST "/orders/$(field id)/cancel"
if [[ $STATUS == 409 ]]; then # its payment was faster
    verdict 'canceling it, too late' 409 order-not-cancelable "POST /orders/…/cancel"
else
    verdict 'canceling it' 200 '"status":"canceled"' "POST /orders/…/cancel"
fi
step 'the orders of a customer' 200 "$ORDER" GET "/orders?user_email=$RUN@example.com" "${ADMINS[@]}"
step 'an archived product' 204 '' DELETE "/admin/products/$PRODUCT" "${ADMINS[@]}"
step 'which is no longer listed' 404 product-not-found GET "/products/$PRODUCT"

WEBHOOK="{\"transaction_id\": \"txn_$RUN\", \"source_account\": \"a_$RUN\", \"destination_account\": \"b_$RUN\", \"amount\": 1500, \"currency\": \"INR\"}"
SIGNED=()
if [[ -n $WEBHOOKS ]]; then
    SIGNED=(-H "X-Signature: $(signature "$WEBHOOKS" "$WEBHOOK")")
    step 'a webhook, unsigned' 401 signature-invalid POST /v1/webhooks/transactions -d "$WEBHOOK"
fi
step 'a webhook' 202 accepted POST /v1/webhooks/transactions ${SIGNED[@]+"${SIGNED[@]}"} -d "$WEBHOOK"
step 'the webhook again' 202 accepted POST /v1/webhooks/transactions ${SIGNED[@]+"${SIGNED[@]}"} \
    -d "$WEBHOOK"
later 'its transaction' 200 PROCESSED GET "/v1/transactions/txn_$RUN"
step 'transactions of an account' 200 "txn_$RUN" GET "/v1/transactions?account=a_$RUN" "${KEYED[@]}"

step 'a fake payment' 200 pending POST /_fake_payments -H "Idempotency-Key: $RUN" \
    -d "{\"order_id\": \"$RUN\", \"amount\": 5, \"outcome\": \"success\", \"delay_seconds\": 0, \"lose\": true}"
FAKE=$(field payment_id)
later 'its end' 200 '"status":"success"' GET "/_fake_payments/$FAKE"
step 'its refund' 200 refunded POST "/_fake_payments/$FAKE/refunds"

step 'dead letters' 200 '"data"' GET /v1/admin/dead-letters "${KEYED[@]}"
NOBODY='00000000-0000-7000-8000-000000000000'
step 'a dead letter of nobody' 404 dead-letter-not-found GET "/v1/admin/dead-letters/$NOBODY" \
    "${KEYED[@]}"
step 'replaying none' 200 '"matched":0' POST /v1/admin/dead-letters/replay "${KEYED[@]}" \
    -d "{\"ids\": [\"$NOBODY\"], \"note\": \"test_api.sh\"}"
step 'discarding none' 200 '"matched":0' POST /v1/admin/dead-letters/discard "${KEYED[@]}" \
    -d "{\"ids\": [\"$NOBODY\"], \"note\": \"test_api.sh\"}"

echo "$passed passed, $failed failed"
((failed == 0))
