-- ack_upto: a client acknowledges all events up to a position.
--
-- KEYS, ARGV: as in _entries.lua (standalone), then: epoch, offset
--
-- Returns the ids that were pending
local acked = {}

local function acknowledge(id, lane)
  remove_pending(id, lane)
  call('ZADD', ACKED, integer(now_ms), id)
  acked[#acked + 1] = id
end

-- Return the entry at one end of a lane and its id.
local function entry_at(lane, place)
  trim_left(lane)
  local id = call('LINDEX', LISTS[lane], place)
  return id and read_pending(id), id
end

-- Acknowledge a lane up to an offset. A lane has ascending offsets, except for events of earlier epochs at its left.
local function acknowledge_upto(lane, in_epoch, upto)
  local function is_covered(e)
    return e.epoch == in_epoch and tonumber(string.match(e.record, '^%d+')) <= upto
  end
  local e, id = entry_at(lane, 0)
  while e and is_covered(e) do
    acknowledge(id, lane)
    e, id = entry_at(lane, 0)
  end
  local newest = entry_at(lane, -1)
  if not e or e.epoch == in_epoch or not newest or newest.epoch ~= in_epoch then
    return -- the rest is newer, or of epochs whose offsets mean nothing here
  end
  -- Pass the events of an earlier epoch. The next fetch publishes them again, and so moves them to the right.
  for from = 0, call('LLEN', LISTS[lane]), 100 do
    for _, passed in ipairs(call('LRANGE', LISTS[lane], from, from + 99)) do
      e = read_pending(passed)
      if e and is_covered(e) then
        acknowledge(passed, lane)
      elseif e and e.epoch == in_epoch then
        return
      end
    end
  end
end

if not pending_agrees() then
  rebuild_lists()
end
for lane = 0, 2 do
  acknowledge_upto(lane, ARGV[last_arg + 1], tonumber(ARGV[last_arg + 2]))
end
if #acked > 0 then
  call('ZREMRANGEBYRANK', ACKED, 0, -1 - ACKED_LIMIT)
  call('EXPIRE', ACKED, math.ceil(CHANNEL_LIFE))
end
return acked
