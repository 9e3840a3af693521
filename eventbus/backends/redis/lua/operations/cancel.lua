-- cancel: a user cancels an operation. It ends immediately if none of its tasks runs, else when
-- they have stopped.
--
-- KEYS, ARGV: as in _operation.lua
--
-- Returns _operation.lua's answer. The state is empty if the operation is unknown.
if is_new then
  return { epoch, text(offset), 0, 0, '', 0, 0, 0, '0' }
end
n.heard = now_ms
if n.cancelled == 0 then
  n.cancelled = now_ms
end
save()
return answer()
