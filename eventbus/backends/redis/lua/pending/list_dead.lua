-- list_dead: read a part of the dead letters, the longest dead first.
--
-- KEYS, ARGV: as in _entries.lua (standalone), then: place of the first one, number of places
--
-- Returns {number of places that were read, id, entry, …}; a tombstone is a place without an entry
local FIRST, PLACES = tonumber(ARGV[last_arg + 1]), tonumber(ARGV[last_arg + 2])
if not dead_agrees() then
  rebuild_lists()
end
local ids = call('LRANGE', LISTS[DEAD_LIST], FIRST, FIRST + PLACES - 1)
local answer = { #ids }
for _, id in ipairs(ids) do
  local entry = call('HGET', DEAD, id)
  if entry then
    answer[#answer + 1] = id
    answer[#answer + 1] = entry
  end
end
return answer
