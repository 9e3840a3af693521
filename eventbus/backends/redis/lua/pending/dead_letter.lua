-- dead_letter: keep an undeliverable event for an operator. Only the first call for an id has an
-- effect. A pending event is moved.
--
-- KEYS, ARGV: as in _entries.lua (standalone), then: id, reason, content
--
-- Returns 1 if the dead letter is new, else 0
local ID, REASON, CONTENT = ARGV[last_arg + 1], ARGV[last_arg + 2], ARGV[last_arg + 3]
if call('HEXISTS', DEAD, ID) == 1 then
  return 0
end
if not (pending_agrees() and dead_agrees()) then
  rebuild_lists()
end
local e = read_pending(ID)
if e then
  dead_letter(ID, e, REASON)
  return 1
end
add_dead(ID, REASON, 0, now_ms, 0, CONTENT)
return 1
