-- New charges at a steady rate, BENCH_PER_SECOND, whether or not earlier ones are answered: wrk asks
-- `delay` when a connection is free, and each gets the next moment of one timetable. A request tells
-- when it was due as its X-Request-ID, which every answer repeats: so answers are timed from then,
-- apart for what was charged and what was refused, and a lack of connections would be seen.
local common = dofile(debug.getinfo(1, "S").source:match("^@(.*/)") .. "common.lua")
local ffi = require("ffi")
ffi.cdef [[
  struct overload_time { long seconds; long nanoseconds; };
  int clock_gettime(int clock, struct overload_time *time);
]]

local USERS = 1000
local MS_MAX = 30000
local head, tails, time = nil, {}, ffi.new("struct overload_time")
local began, booked, interval_us, only = nil, 0, 0, nil
-- How many answers took so many milliseconds; global, so that `done` can get them.
accepted, refused = {}, {}
others, asked = 0, 0

local function now_us()
  ffi.C.clock_gettime(1, time)
  return tonumber(time.seconds) * 1e6 + tonumber(time.nanoseconds) / 1e3
end

function setup(thread)
  only = thread
end

function init(args)
  common.seed()
  interval_us = 1e6 / tonumber(assert(os.getenv("BENCH_PER_SECOND")))
  head = common.head()
  for user = 1, USERS do
    tails[user] = common.tail(user)
  end
end

function delay()
  local now = now_us()
  began = began or now
  local due = began + booked * interval_us
  booked = booked + 1
  return math.max(0, math.ceil((due - now) / 1e3))
end

function request()
  if not began then return head .. common.uuid() .. tails[1] end  -- wrk looks at one before it begins
  local due = began + asked * interval_us
  asked = asked + 1
  return string.format(
    "%s%s\r\nX-Request-ID: %d%s", head, common.uuid(), due, tails[math.random(USERS)])
end

function response(status, headers)
  if status ~= 200 and status ~= 503 then
    others = others + 1
    return
  end
  local of = status == 200 and accepted or refused
  local ms = math.ceil((now_us() - tonumber(headers["x-request-id"])) / 1e3)
  ms = math.max(0, math.min(ms, MS_MAX))
  of[ms] = (of[ms] or 0) + 1
end

local function told(name)
  local of = only:get(name)
  local count, within, seen, p50, p99, most = 0, 0, 0, 0, 0, 0
  for ms = 0, MS_MAX do
    count = count + (of[ms] or 0)
    within = within + (ms <= 50 and of[ms] or 0)
  end
  for ms = 0, MS_MAX do
    if of[ms] then
      seen, most = seen + of[ms], ms
      if seen <= count * 0.5 then p50 = ms end
      if seen <= count * 0.99 then p99 = ms end
    end
  end
  return string.format(
    '{"answers": %d, "within_50_ms": %d, "p50_ms": %d, "p99_ms": %d, "max_ms": %d}',
    count, within, p50 + 1, p99 + 1, most)
end

function done(summary)
  local e = summary.errors
  print(string.format(
    'RESULT {"seconds": %.6f, "sent": %d, "accepted": %s, "refused": %s, "others": %d, '
    .. '"failed": %d}',
    summary.duration / 1e6, only:get("asked"), told("accepted"), told("refused"), only:get("others"),
    e.connect + e.read + e.write + e.timeout))
end
