-- fork: begin a new epoch of a channel whose data went back in time under the same epoch. Offsets continue.
--
-- KEYS[1] state: as in _channel.lua
-- ARGV[1] epoch to end
-- ARGV[2] new epoch
--
-- Several processes may notice the same loss. Only the first one forks: the epoch is another one then.
-- Returns 1 if it forked the channel
local state = redis.call('HMGET', KEYS[1], 'epoch', 'offset')
if state[1] ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'epoch', ARGV[2], 'parent', state[1], 'fork', state[2], 'kept', '0', 'lossy', '1')
return 1
