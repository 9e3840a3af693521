-- Timeline: the first piece of each script that uses a channel's position. It reads the state. If the
-- channel's last write belongs to another timeline of the data, it continues or forks the epoch.
-- The rules are those of eventbus/protocol/timeline.py.
--
-- KEYS[1] state  hash  epoch, offset, logged, until, timeline, format; after a fork: parent (epoch), fork (offset),
--                kept (1: no event up to the fork was lost), lossy (1: some fork may have lost events)
--
-- ARGV[1] new epoch: used if the channel has none, or if it forks
-- ARGV[2] timeline of the connection; empty: unknown
-- ARGV[3] its ancestors, with spaces between them; a tilde precedes those that lost no published event
local STATE, NEW_EPOCH, TIMELINE = KEYS[1], ARGV[1], ARGV[2]
local call = redis.call
local state = call('HMGET', STATE, 'epoch', 'offset', 'logged', 'until', 'timeline', 'format')
if state[5] ~= TIMELINE and state[1] and TIMELINE ~= '' then
  local former = state[5] and state[5] ~= '' and state[5] or '-'
  local server, generation = string.match(former, '^(%x+)%.(%d+)$')
  local own, number = string.match(TIMELINE, '^(%x+)%.(%d+)$')
  if server == own and tonumber(generation) > tonumber(number) then
    return redis.error_reply('OUTDATED ' .. former)
  end
  local ancestors = ' ' .. ARGV[3] .. ' '
  if server ~= own and string.find(ancestors, ' ' .. former .. ' ', 1, true) then
    call('HSET', STATE, 'timeline', TIMELINE)
  else
    local kept = string.find(ancestors, ' ~' .. former .. ' ', 1, true) ~= nil
    call('HSET', STATE, 'epoch', NEW_EPOCH, 'timeline', TIMELINE, 'parent', state[1], 'fork', state[2],
      'kept', kept and '1' or '0')
    if not kept then
      call('HSET', STATE, 'lossy', '1')
    end
    state[1] = NEW_EPOCH
  end
end
