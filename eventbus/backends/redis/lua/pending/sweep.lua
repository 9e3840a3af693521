-- sweep: give up on what has expired, let go of the dead whose time is over.
--
-- KEYS as in _pending.lua (alone), and KEYS[12] swept  hash  the highest fence that has swept here; pending and dead as told then
-- ARGV as in _pending.lua, then: fence, a number that grows with each lease of the sweeper
--
-- A sweeper that slept through the end of its lease has a lower fence than its successor, and does nothing.
-- Returns {1 if fenced off, buried, dead let go, pending, first of the oldest pending (ms), dead, when the oldest died (ms),
-- when to look again (ms; 0: there is nothing left), change of pending and of dead since the last sweep}
local fence = tonumber(ARGV[OPTIONS + 1])
local told = redis.call('HMGET', KEYS[12], 'fence', 'pending', 'dead')
if tonumber(told[1] or '0') > fence then
  return { 1, 0, 0, 0, '0', 0, '0', '0', 0, 0 }
end
local oldest, look = 0, 0

local function sooner(a, b)
  return (a == 0 or b < a) and b or a
end

for _, id in ipairs(redis.call('HKEYS', KEYS[5])) do
  local e = pending(id)
  if e.expires <= now_ms then
    bury(id, e, 'expired')
  else
    oldest, look = sooner(oldest, e.first), sooner(look, e.expires)
  end
end
local gone = redis.call('ZRANGEBYSCORE', KEYS[10], '-inf', integer(now_ms - DEAD_LIFE * 1000))
for _, id in ipairs(gone) do
  redis.call('HDEL', KEYS[9], id)
  redis.call('ZREM', KEYS[10], id)
end
local died = tonumber(redis.call('ZRANGE', KEYS[10], 0, 0, 'WITHSCORES')[2] or '0')
if died > 0 then
  look = sooner(look, died + DEAD_LIFE * 1000)
end
local left, dead = redis.call('HLEN', KEYS[5]), redis.call('HLEN', KEYS[9])
redis.call('HSET', KEYS[12], 'fence', integer(fence), 'pending', left, 'dead', dead)
redis.call('EXPIRE', KEYS[12], math.ceil(DEAD_LIFE * 1.125))
return { 0, buried, #gone, left, integer(oldest), dead, integer(died), integer(look),
  left - tonumber(told[2] or '0'), dead - tonumber(told[3] or '0') }
