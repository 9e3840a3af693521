-- read: a channel in one consistent step.
--
-- KEYS[1] state, KEYS[2] log, KEYS[3] snapshot  as in channel.lua
-- ARGV[1] after   log entries above this offset; -1: none of the log
--
-- Returns {epoch, offset, logged, {previous, record, …}, {record, …}}; an empty epoch where nothing was published
local state = redis.call('HMGET', KEYS[1], 'epoch', 'offset', 'logged')
if not state[1] then
  return { '', '0', '0', {}, {} }
end
local log = {}
if ARGV[1] ~= '-1' then
  for _, entry in ipairs(redis.call('XRANGE', KEYS[2], '(' .. ARGV[1] .. '-0', '+')) do
    log[#log + 1] = entry[2][2]
    log[#log + 1] = entry[2][4]
  end
end
return { state[1], state[2], state[3], log, redis.call('HVALS', KEYS[3]) }
