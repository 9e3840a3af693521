-- Acknowledge: the part that ack.lua and ack_upto.lua share. It comes directly before the verb.
--
-- KEYS, ARGV, constants: as in _entries.lua

-- Remember that ids were acknowledged. Returns the ids.
local function note_acknowledged(ids)
  for from = 1, #ids, 1000 do -- unpack has a limit
    local members = {}
    for i = from, math.min(from + 999, #ids) do
      members[#members + 1] = integer(now_ms)
      members[#members + 1] = ids[i]
    end
    call('ZADD', ACKED, unpack(members))
  end
  if #ids > 0 then
    call('ZREMRANGEBYRANK', ACKED, 0, -1 - ACKED_LIMIT)
    call('EXPIRE', ACKED, math.ceil(CHANNEL_LIFE))
  end
  return ids
end
