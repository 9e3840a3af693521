-- again: send once more what nobody has acknowledged in time; called while the user is connected somewhere.
--
-- KEYS, ARGV as in _pending.lua (alone), then: live channel, sharded (1: SPUBLISH), id, …
--
-- `next` in the entry decides, so several gateways that ask at the same time send it once.
-- Returns {buried, when each id is due next (ms; 0: it is pending no more), …}
local LIVE, SHARDED = ARGV[OPTIONS + 1], ARGV[OPTIONS + 2]
local due, records = {}, {}
local in_epoch
for i = OPTIONS + 3, #ARGV do
  local id = ARGV[i]
  local e = pending(id)
  if not e then
    due[#due + 1] = '0'
  elseif e.expires <= now_ms then
    bury(id, e, 'expired')
    due[#due + 1] = '0'
  elseif e.next > now_ms then
    due[#due + 1] = integer(e.next)
  elseif e.attempts >= ATTEMPTS then
    bury(id, e, 'attempts')
    due[#due + 1] = '0'
  else
    e.attempts = e.attempts + 1
    e.next = now_ms + math.min(ACK_TIMEOUT * 2 ^ e.attempts, LONGEST_PAUSE)
    keep_pending(id, e)
    due[#due + 1] = integer(e.next)
    records[#records + 1] = e.record
    in_epoch = e.epoch
  end
end
if #records > 0 then
  redis.call(SHARDED == '1' and 'SPUBLISH' or 'PUBLISH', LIVE, 'again ' .. in_epoch .. '\n' .. table.concat(records, '\n'))
end
return { buried, unpack(due) }
