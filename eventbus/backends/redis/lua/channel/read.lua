-- read: read a channel's position, log and snapshot in one consistent step.
--
-- KEYS[1] state, KEYS[2] log, KEYS[3] snapshot: as in _channel.lua, after _timeline.lua
-- KEYS[4] pending: as KEYS[5] in _entries.lua
-- ARGV[1..3] as in _timeline.lua
-- ARGV[4] offset: return log entries above it; -1: no log entries
-- ARGV[5] maximum number of entries, 0: no maximum
-- ARGV[6] bytes: stop after the entry that exceeds this size
--
-- Returns {epoch, offset, logged, {id, previous, record, …}, {state, …}, 1 if the log has more, 1
-- if the user has pending events, format of the state, parent, fork, kept, lossy}. The epoch is empty if
-- nothing was published.
local LOG, SNAPSHOT, PENDING = KEYS[2], KEYS[3], KEYS[4]
local AFTER = ARGV[4]

local has_pending = redis.call('EXISTS', PENDING)
if not state[1] then
  return { '', '0', '0', {}, {}, 0, has_pending, '1', '', '0', '0', '0' }
end
local past = redis.call('HMGET', STATE, 'parent', 'fork', 'kept', 'lossy')
local log, more = {}, 0
if AFTER ~= '-1' then
  local limit, bytes = tonumber(ARGV[5]), tonumber(ARGV[6])
  local range = { LOG, '(' .. AFTER .. '-0', '+' }
  if limit > 0 then
    range[4], range[5] = 'COUNT', limit + 1
  end
  for i, entry in ipairs(redis.call('XRANGE', unpack(range))) do
    if limit > 0 and (i > limit or bytes <= 0) then
      more = 1
      break
    end
    -- Another program may have written an entry without our fields. It stays one entry of three
    -- values.
    local fields = entry[2]
    local names_previous = fields[1] == 'p'
    local record = (names_previous and fields[4]) or (fields[1] == 'r' and fields[2]) or ''
    log[#log + 1] = entry[1]
    log[#log + 1] = names_previous and fields[2] or ''
    log[#log + 1] = record
    bytes = bytes - #record
  end
end
return { state[1], state[2], state[3], log, redis.call('HVALS', SNAPSHOT), more, has_pending,
  state[6] or '1', past[1] or '', past[2] or '0', past[3] or '0', past[4] or '0' }
