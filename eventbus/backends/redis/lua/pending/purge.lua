-- purge: an operator removes dead letters.
--
-- KEYS, ARGV: as in _entries.lua (standalone), then: id, …
--
-- Returns the number of removed dead letters
if not dead_agrees() then
  rebuild_lists()
end
local removed = 0
for i = last_arg + 1, #ARGV do
  if call('HDEL', DEAD, ARGV[i]) == 1 then
    remove_id(DEAD_LIST, ARGV[i])
    removed = removed + 1
  end
end
return removed
