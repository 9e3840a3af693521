-- ack: a client acknowledges events by id.
--
-- KEYS, ARGV: as in _entries.lua (standalone), then: id, …
--
-- Returns the ids that were pending
local acked = {}
for i = last_arg + 1, #ARGV do
  local id = ARGV[i]
  local e = read_pending(id)
  if e then
    remove_pending(id, e.lane)
    call('ZADD', ACKED, integer(now_ms), id)
    acked[#acked + 1] = id
  end
end
if #acked > 0 then
  call('ZREMRANGEBYRANK', ACKED, 0, -1 - ACKED_LIMIT)
  call('EXPIRE', ACKED, math.ceil(CHANNEL_LIFE))
end
return acked
