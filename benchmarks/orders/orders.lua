-- New orders of one piece each, every one with a key and an e-mail of its own, over the products
-- whose ids are in BENCH_PRODUCTS, at random.
local common = dofile(debug.getinfo(1, "S").source:match("^@(.*/)") .. "../wrk/common.lua")
local head, products = nil, {}

function init(args)
  common.seed()
  for line in io.lines(assert(os.getenv("BENCH_PRODUCTS"))) do
    products[#products + 1] = line
  end
  head = "POST /orders HTTP/1.1\r\nHost: " .. wrk.host .. ":" .. wrk.port
    .. "\r\nContent-Type: application/json\r\nIdempotency-Key: "
end

function request()
  local key = common.uuid()
  local body = '{"user_email": "' .. key .. '@example.com", "items": [{"product_id": "'
    .. products[math.random(#products)] .. '", "quantity": 1}]}'
  return head .. key .. "\r\nContent-Length: " .. #body .. "\r\n\r\n" .. body
end
