-- sweep: move expired pending events to the dead letters, and remove dead letters whose time is
-- over.
--
-- KEYS: as in _pending.lua (standalone), then:
-- KEYS[12] swept  hash  highest fencing token of a sweeper here; pending and dead as of the last sweep
-- ARGV: as in _pending.lua, then: fencing token, a number that grows with each lease of the sweeper
--
-- A sweeper whose lease has expired has a lower token than its successor, and does nothing.
-- Returns {1 if fenced off, dead-lettered, dead letters removed, pending, first publication of the
-- oldest pending (ms), dead, death of the oldest dead letter (ms), next sweep (ms; 0: nothing is
-- left), change of pending and of dead since the last sweep}
local SWEPT = KEYS[12]
local TOKEN = tonumber(ARGV[last_arg + 1])
local last = call('HMGET', SWEPT, 'fence', 'pending', 'dead')
if tonumber(last[1] or '0') > TOKEN then
  return { 1, 0, 0, 0, '0', 0, '0', '0', 0, 0 }
end
local oldest, next_sweep = 0, 0

local function earlier(a, b)
  return (a == 0 or b < a) and b or a
end

for _, id in ipairs(call('HKEYS', PENDING)) do
  local e = read_pending(id)
  if e.expires <= now_ms then
    dead_letter(id, e, 'expired')
  else
    oldest, next_sweep = earlier(oldest, e.first), earlier(next_sweep, e.expires)
  end
end
local released = call('ZRANGEBYSCORE', DEAD_AT, '-inf', integer(now_ms - DEAD_LIFE * 1000))
for _, id in ipairs(released) do
  call('HDEL', DEAD, id)
  call('ZREM', DEAD_AT, id)
end
local died = tonumber(call('ZRANGE', DEAD_AT, 0, 0, 'WITHSCORES')[2] or '0')
if died > 0 then
  next_sweep = earlier(next_sweep, died + DEAD_LIFE * 1000)
end
local left, dead = call('HLEN', PENDING), call('HLEN', DEAD)
call('HSET', SWEPT, 'fence', integer(TOKEN), 'pending', left, 'dead', dead)
call('EXPIRE', SWEPT, math.ceil(DEAD_LIFE * SLACK))
return { 0, dead_lettered, #released, left, integer(oldest), dead, integer(died), integer(next_sweep),
  left - tonumber(last[2] or '0'), dead - tonumber(last[3] or '0') }
