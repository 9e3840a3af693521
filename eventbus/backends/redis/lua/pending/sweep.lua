-- sweep: move expired pending events to the dead letters, and remove dead letters whose time is
-- over.
--
-- KEYS: as in _entries.lua (standalone), then:
-- KEYS[13] swept  hash  highest fencing token of a sweeper here; pending and dead as of the last sweep
-- ARGV: as in _entries.lua, then: fencing token, a number that grows with each lease of the sweeper
--
-- A sweeper whose lease has expired has a lower token than its successor, and does nothing.
-- Returns {1 if fenced off, dead-lettered, dead letters removed, pending, first publication of the
-- oldest pending (ms), dead, death of the oldest dead letter (ms), next sweep (ms; 0: nothing is
-- left), change of pending and of dead since the last sweep}
local SWEPT = KEYS[13]
local TOKEN = tonumber(ARGV[last_arg + 1])
local last = call('HMGET', SWEPT, 'fence', 'pending', 'dead')
if tonumber(last[1] or '0') > TOKEN then
  return { 1, 0, 0, 0, '0', 0, '0', '0', 0, 0 }
end
local oldest, next_sweep = 0, 0

local function earlier(a, b)
  return (a == 0 or b < a) and b or a
end

if not (pending_agrees() and dead_agrees()) then
  rebuild_lists()
end
for _, id in ipairs(call('HKEYS', PENDING)) do
  local e = read_pending(id)
  if e.expires <= now_ms then
    dead_letter(id, e, 'expired')
  else
    oldest, next_sweep = earlier(oldest, e.first), earlier(next_sweep, e.expires)
  end
end
-- Dead letters are ordered by their death. Entries of other programs have no time. They go with the
-- one behind it.
local released, died, from = 0, 0, 0
while died == 0 do
  local id = call('LINDEX', LISTS[DEAD_LIST], from)
  if not id then
    break
  end
  local entry = call('HGET', DEAD, id)
  local death = tonumber(entry and split_entry(entry)[4])
  if not death then
    from = from + 1
  elseif death > now_ms - DEAD_LIFE * 1000 then
    died = death
  else
    repeat
      local leftmost = call('LPOP', LISTS[DEAD_LIST])
      released = released + call('HDEL', DEAD, leftmost)
      trim_left(DEAD_LIST)
    until leftmost == id
    from = 0
  end
end
local left, dead = call('HLEN', PENDING), call('HLEN', DEAD)
if dead > 0 then
  died = died > 0 and died or now_ms
  next_sweep = earlier(next_sweep, died + DEAD_LIFE * 1000)
end
call('HSET', SWEPT, 'fence', integer(TOKEN), 'pending', left, 'dead', dead)
call('EXPIRE', SWEPT, math.ceil(DEAD_LIFE * SLACK))
return { 0, dead_lettered, released, left, integer(oldest), dead, integer(died), integer(next_sweep),
  left - tonumber(last[2] or '0'), dead - tonumber(last[3] or '0') }
