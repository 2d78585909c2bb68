-- What the scripts share: a request as one string, and the summary as one line of JSON.
-- Strings are concatenated here instead of wrk.format(), because wrk shares the cores with what
-- it measures.

local common = {}

local hex = {}
for n = 0, 65535 do
  hex[n] = string.format("%04x", n)
end

-- Each thread has a generator of its own, seeded from the kernel: no key repeats across threads
-- or runs. The keys are random (version 4), because a client's are, and indexes feel it.
function common.seed()
  local source = assert(io.open("/dev/urandom", "rb"))
  local bytes = source:read(6)
  source:close()
  local seed = 0
  for n = 1, #bytes do
    seed = seed * 256 + bytes:byte(n)
  end
  math.randomseed(seed)
end

function common.uuid()
  local random = math.random
  local a, b, c = random(0, 65535), random(0, 65535), random(0, 65535)
  local d, e = random(16384, 20479), random(32768, 49151)
  local f, g, h = random(0, 65535), random(0, 65535), random(0, 65535)
  return hex[a] .. hex[b] .. "-" .. hex[c] .. "-" .. hex[d] .. "-" .. hex[e] .. "-"
    .. hex[f] .. hex[g] .. hex[h]
end

-- Everything before the key.
function common.head()
  return "POST /charge HTTP/1.1\r\nHost: " .. wrk.host .. ":" .. wrk.port
    .. "\r\nX-API-Key: " .. assert(os.getenv("BENCH_API_KEY"))
    .. "\r\nContent-Type: application/json\r\nIdempotency-Key: "
end

-- Everything after it.
function common.tail(user)
  local body = '{"user_id": ' .. user .. ', "amount": 1.00, "currency": "USD"}'
  return "\r\nContent-Length: " .. #body .. "\r\n\r\n" .. body
end

-- `status` counts answers above 399 in C; counting every answer in Lua would cost more than the
-- server does. Nothing here answers 1xx or 3xx, so what is left is 2xx, and it is compared with
-- the rows in the database afterwards.
function done(summary, latency, requests)
  local e = summary.errors
  print(string.format(
    'RESULT {"answers": %d, "seconds": %.6f, "non_2xx": %d, "connect": %d, "read": %d, '
    .. '"write": %d, "timeout": %d, "p50_ms": %.3f, "p90_ms": %.3f, "p99_ms": %.3f, '
    .. '"max_ms": %.3f}',
    summary.requests, summary.duration / 1e6, e.status, e.connect, e.read, e.write, e.timeout,
    latency:percentile(50) / 1e3, latency:percentile(90) / 1e3, latency:percentile(99) / 1e3,
    latency.max / 1e3))
end

return common
