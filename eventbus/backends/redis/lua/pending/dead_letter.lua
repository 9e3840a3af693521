-- bury: what cannot be delivered at all, kept for a person to look at. The first to bury an id does it; if it was owed,
-- it is owed no more.
--
-- KEYS, ARGV as in _pending.lua (alone), then: id, reason, what could be read
--
-- Returns 1 if it was not there yet
local id = ARGV[OPTIONS + 1]
if redis.call('HEXISTS', KEYS[9], id) == 1 then
  return 0
end
local e = pending(id)
if e then
  bury(id, e, ARGV[OPTIONS + 2])
  return 1
end
bury_entry(id, ARGV[OPTIONS + 2], 0, now_ms, 0, ARGV[OPTIONS + 3])
return 1
