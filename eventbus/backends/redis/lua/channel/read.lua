-- read: a channel in one consistent step.
--
-- KEYS[1] state, KEYS[2] log, KEYS[3] snapshot  as in _channel.lua; KEYS[4] pending as in _pending.lua
-- ARGV[1] after   log entries above this offset; -1: none of the log
-- ARGV[2] entries at most, 0: all; ARGV[3] bytes, about which the log part of the answer ends
--
-- Returns {epoch, offset, logged, {id, previous, record, …}, {record, …}, 1 if the log has more, 1 if its user is
-- owed something}; an empty epoch where nothing was published
local owed = redis.call('EXISTS', KEYS[4])
local state = redis.call('HMGET', KEYS[1], 'epoch', 'offset', 'logged')
if not state[1] then
  return { '', '0', '0', {}, {}, 0, owed }
end
local log, more = {}, 0
if ARGV[1] ~= '-1' then
  local limit, bytes = tonumber(ARGV[2]), tonumber(ARGV[3])
  local range = { KEYS[2], '(' .. ARGV[1] .. '-0', '+' }
  if limit > 0 then
    range[4], range[5] = 'COUNT', limit + 1
  end
  for i, entry in ipairs(redis.call('XRANGE', unpack(range))) do
    if limit > 0 and (i > limit or bytes <= 0) then
      more = 1
      break
    end
    -- Whoever may write here may write anything: an entry without our fields stays one, and stays three values.
    local fields = entry[2]
    local named = fields[1] == 'p'
    local record = (named and fields[4]) or (fields[1] == 'r' and fields[2]) or ''
    log[#log + 1] = entry[1]
    log[#log + 1] = named and fields[2] or ''
    log[#log + 1] = record
    bytes = bytes - #record
  end
end
return { state[1], state[2], state[3], log, redis.call('HVALS', KEYS[3]), more, owed }
