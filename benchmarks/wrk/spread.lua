-- New charges, each with a key of its own, over 1000 users at random.
local common = dofile(debug.getinfo(1, "S").source:match("^@(.*/)") .. "common.lua")
local USERS = 1000
local head, tails = nil, {}

function init(args)
  common.seed()
  head = common.head()
  for user = 1, USERS do
    tails[user] = common.tail(user)
  end
end

function request()
  return head .. common.uuid() .. tails[math.random(USERS)]
end
