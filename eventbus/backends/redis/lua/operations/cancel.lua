-- cancel: somebody wants an operation stopped. It ends at once if nothing of it runs, else when that has stopped.
--
-- KEYS, ARGV as in _operation.lua
--
-- Returns as _operation.lua's answer; an empty state where the operation is not known
if is_new then
  return { epoch, text(offset), 0, 0, '', 0, 0, 0, '0' }
end
if n.cancelled == 0 then
  n.cancelled = now_ms
end
settle()
return answer()
