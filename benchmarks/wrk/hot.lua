-- New charges, each with a key of its own, all on one user.
local common = dofile(debug.getinfo(1, "S").source:match("^@(.*/)") .. "common.lua")
local head, tail

function init(args)
  common.seed()
  head, tail = common.head(), common.tail(1)
end

function request()
  return head .. common.uuid() .. tail
end
