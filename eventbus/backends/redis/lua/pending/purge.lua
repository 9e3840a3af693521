-- purge: an operator removes dead letters.
--
-- KEYS, ARGV: as in _entries.lua (standalone), then: id, …
--
-- Returns the number of removed dead letters
local NUMBER = #ARGV - last_arg
if not dead_agrees() then
  rebuild_lists()
end

-- An operator usually removes the longest dead. If the list begins with the ids, one command removes all of them.
local leftmost = {}
if tombstones[DEAD_LIST] == 0 and NUMBER <= 1000 then -- unpack has a limit
  leftmost = call('LRANGE', LISTS[DEAD_LIST], 0, NUMBER - 1)
end
local same = #leftmost == NUMBER and NUMBER > 0
for i, id in ipairs(leftmost) do
  same = same and id == ARGV[last_arg + i]
end
if same then
  call('LPOP', LISTS[DEAD_LIST], NUMBER)
  return call('HDEL', DEAD, unpack(leftmost))
end

local removed = 0
for i = last_arg + 1, #ARGV do
  if call('HDEL', DEAD, ARGV[i]) == 1 then
    remove_id(DEAD_LIST, ARGV[i])
    removed = removed + 1
  end
end
return removed
