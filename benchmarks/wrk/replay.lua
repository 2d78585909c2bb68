-- Duplicates only: the file BENCH_KEYS has one key a line that was charged before; the key of
-- line n belongs to user n.
local common = dofile(debug.getinfo(1, "S").source:match("^@(.*/)") .. "common.lua")
local requests, count = {}, 0

function init(args)
  common.seed()
  local head = common.head()
  for key in io.lines(assert(os.getenv("BENCH_KEYS"))) do
    count = count + 1
    requests[count] = head .. key .. common.tail(count)
  end
end

function request()
  return requests[math.random(count)]
end
