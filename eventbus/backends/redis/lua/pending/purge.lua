-- purge: an operator removes dead letters.
--
-- KEYS, ARGV: as in _pending.lua (standalone), then: id, …
--
-- Returns the number of removed dead letters
local removed = 0
for i = last_arg + 1, #ARGV do
  removed = removed + call('HDEL', DEAD, ARGV[i])
  call('ZREM', DEAD_AT, ARGV[i])
end
return removed
