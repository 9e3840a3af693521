-- ack: a client acknowledges events.
--
-- KEYS, ARGV: as in _pending.lua (standalone), then either 'ids', id, … or 'upto', epoch, offset
--
-- Returns the ids that were pending
local acked = {}

local function acknowledge(id, e)
  remove_pending(id, e.lane)
  call('ZADD', ACKED, integer(now_ms), id)
  acked[#acked + 1] = id
end

if ARGV[last_arg + 1] == 'ids' then
  for i = last_arg + 2, #ARGV do
    local e = read_pending(ARGV[i])
    if e then
      acknowledge(ARGV[i], e)
    end
  end
else
  local in_epoch, upto = ARGV[last_arg + 2], ARGV[last_arg + 3]
  for lane = 0, 2 do
    for _, id in ipairs(call('ZRANGEBYSCORE', KEYS[FIRST_LANE + lane], '-inf', upto)) do
      local e = read_pending(id)
      -- Offsets of another epoch mean nothing in this one.
      if e and e.epoch == in_epoch then
        acknowledge(id, e)
      end
    end
  end
end
if #acked > 0 then
  call('ZREMRANGEBYRANK', ACKED, 0, -1 - ACKED_LIMIT)
  call('EXPIRE', ACKED, math.ceil(CHANNEL_LIFE))
end
return acked
