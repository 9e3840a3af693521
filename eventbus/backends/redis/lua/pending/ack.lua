-- ack: a browser has it.
--
-- KEYS, ARGV as in _pending.lua (alone), then either 'ids', id, … or 'upto', epoch, offset
--
-- Returns the ids that left the lists
local acked = {}

local function acknowledge(id, e)
  forget_pending(id, e.lane)
  redis.call('ZADD', KEYS[11], integer(now_ms), id)
  acked[#acked + 1] = id
end

if ARGV[OPTIONS + 1] == 'ids' then
  for i = OPTIONS + 2, #ARGV do
    local e = pending(ARGV[i])
    if e then
      acknowledge(ARGV[i], e)
    end
  end
else
  local in_epoch, upto = ARGV[OPTIONS + 2], ARGV[OPTIONS + 3]
  for lane = 6, 8 do
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[lane], '-inf', upto)) do
      local e = pending(id)
      -- Offsets of another life of the channel mean nothing in this one.
      if e and e.epoch == in_epoch then
        acknowledge(id, e)
      end
    end
  end
end
if #acked > 0 then
  redis.call('ZREMRANGEBYRANK', KEYS[11], 0, -1 - ACKED_LIMIT)
  redis.call('EXPIRE', KEYS[11], math.ceil(LIFE))
end
return acked
