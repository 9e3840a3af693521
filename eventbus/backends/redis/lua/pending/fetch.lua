-- drain: what a user is owed, in the order in which it is to be handed over: 16 high, 4 normal, 1 low, and so on.
--
-- KEYS, ARGV as in _pending.lua (after channel), then: bytes, about which the answer ends
--
-- What was owed in another life of the channel is appended to this one: an offset must be of the epoch that the page is told.
-- Returns {epoch, end of the channel, 1 if there is more, record, …}
local WEIGHTS = { 16, 4, 1 }
local answer = {}
local waiting, at, left = {}, { 1, 1, 1 }, 0
if redis.call('EXISTS', KEYS[5]) == 1 then
  for lane = 1, 3 do
    waiting[lane] = redis.call('ZRANGE', KEYS[5 + lane], 0, -1)
    left = left + #waiting[lane]
  end
end
local revived = false

local function revive(id, e)
  local header, tail = take_apart(e.record)
  redis.call('ZREM', KEYS[4], id)
  append(id, 'log', '', header, tail)
  e.epoch, e.record = epoch, records[#records]
  keep_pending(id, e)
  lives_until(e.expires)
  redis.call('ZADD', KEYS[6 + e.lane], text(offset), id)
  revived = true
end

local size, limit = 0, tonumber(ARGV[OPTIONS + 1])
while left > 0 and size < limit do
  for lane = 1, 3 do
    for _ = 1, WEIGHTS[lane] do
      local id = waiting[lane][at[lane]]
      if not id or size >= limit then
        break
      end
      at[lane], left = at[lane] + 1, left - 1
      local e = pending(id)
      if e and e.expires <= now_ms then
        bury(id, e, 'expired')
      elseif e then
        if e.epoch ~= epoch then
          revive(id, e)
        end
        answer[#answer + 1] = e.record
        size = size + #e.record
      else
        redis.call('ZREM', KEYS[5 + lane], id)
      end
    end
  end
end
-- Taking an id out may have been the end of its key, which is then new and has no life yet.
fresh_keys = fresh_keys or revived
close()
if revived then
  pending_live_on(2 * math.max(lasts - tonumber(clock[1]), 1))
end
-- Without a state and without anything to revive there is no life yet, and so no name for it.
return { (state[1] or revived) and epoch or '', text(offset), left > 0 and 1 or 0, unpack(answer) }
