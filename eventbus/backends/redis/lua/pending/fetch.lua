-- fetch: read a user's pending events in the order of delivery: 16 high, 4 normal, 1 low, and so
-- on.
--
-- KEYS, ARGV: as in _pending.lua (after _channel.lua), then: bytes, after which the answer ends
--
-- Events of an earlier epoch are appended to this one, since a client needs offsets of the current
-- epoch.
-- Returns {epoch, end of the channel, 1 if there are more, record, …}
--
-- Constants from Python: WEIGHTS (events of each lane in a round).
local LIMIT = tonumber(ARGV[last_arg + 1])
local answer = {}
local ids, at, left = {}, { 1, 1, 1 }, 0
if call('EXISTS', PENDING) == 1 then
  for lane = 1, 3 do
    ids[lane] = call('ZRANGE', KEYS[FIRST_LANE + lane - 1], 0, -1)
    left = left + #ids[lane]
  end
end
local republished = false

local function republish(id, e)
  local header, tail = split_record(e.record)
  call('ZREM', IDS, id)
  append(id, 'log', '', header, tail)
  e.epoch, e.record = epoch, records[#records]
  save_pending(id, e)
  keep_channel_until(e.expires)
  call('ZADD', KEYS[FIRST_LANE + e.lane], text(offset), id)
  republished = true
end

local size = 0
while left > 0 and size < LIMIT do
  for lane = 1, 3 do
    for _ = 1, WEIGHTS[lane] do
      local id = ids[lane][at[lane]]
      if not id or size >= LIMIT then
        break
      end
      at[lane], left = at[lane] + 1, left - 1
      local e = read_pending(id)
      if e and e.expires <= now_ms then
        dead_letter(id, e, 'expired')
      elseif e then
        if e.epoch ~= epoch then
          republish(id, e)
        end
        answer[#answer + 1] = e.record
        size = size + #e.record
      else
        call('ZREM', KEYS[FIRST_LANE + lane - 1], id)
      end
    end
  end
end
-- ZREM may have removed the last id and with it the key. The key is then new and has no expiry yet.
fresh_keys = fresh_keys or republished
close()
if republished then
  expire_pending(2 * math.max(lives_until - tonumber(clock[1]), 1))
end
-- Without a state and without a republished event the channel has no epoch yet.
return { (state[1] or republished) and epoch or '', text(offset), left > 0 and 1 or 0, unpack(answer) }
