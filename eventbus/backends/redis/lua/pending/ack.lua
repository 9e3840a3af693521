-- ack: a client acknowledges events by id.
--
-- KEYS, ARGV: as in _entries.lua (standalone), then: id, …
--
-- Returns the ids that were pending
local acked = {}
for i = last_arg + 1, #ARGV do
  local id = ARGV[i]
  local entry = call('HGET', PENDING, id)
  if entry then
    remove_pending(id, tonumber(string.match(entry, '^%S+ (%d)')))
    acked[#acked + 1] = id
  end
end
return note_acknowledged(acked)
