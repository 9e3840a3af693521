-- redeliver: publish events again that no client acknowledged in time. A gateway calls it while the
-- user is connected.
--
-- KEYS, ARGV: as in _entries.lua (standalone), then: pub/sub channel, sharded (1: SPUBLISH), id, …
--
-- An entry's `next` decides, so that several gateways which call at the same time publish it once.
-- Returns {dead-lettered, next delivery of each id (ms; 0: no longer pending), …}
local LIVE, SHARDED = ARGV[last_arg + 1], ARGV[last_arg + 2]
local due, records = {}, {}
local in_epoch
for i = last_arg + 3, #ARGV do
  local id = ARGV[i]
  local e = read_pending(id)
  if not e then
    due[#due + 1] = '0'
  elseif e.expires <= now_ms then
    dead_letter(id, e, 'expired')
    due[#due + 1] = '0'
  elseif e.next > now_ms then
    due[#due + 1] = integer(e.next)
  elseif e.attempts >= ATTEMPTS then
    dead_letter(id, e, 'attempts')
    due[#due + 1] = '0'
  else
    e.attempts = e.attempts + 1
    e.next = now_ms + math.min(ACK_TIMEOUT * 2 ^ e.attempts, LONGEST_PAUSE)
    save_pending(id, e)
    due[#due + 1] = integer(e.next)
    records[#records + 1] = e.record
    in_epoch = e.epoch
  end
end
if #records > 0 then
  call(SHARDED == '1' and 'SPUBLISH' or 'PUBLISH', LIVE, 'again ' .. in_epoch .. '\n' .. table.concat(records, '\n'))
end
return { dead_lettered, unpack(due) }
