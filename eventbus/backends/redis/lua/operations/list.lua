-- list: read the operations of one channel, the newest first. Expired operations are removed on the
-- way.
--
-- KEYS[1] operations: KEYS[8] of _operation.lua
-- ARGV[1] stem of the keys with the counts, which are in the same slot
-- ARGV[2] maximum number of operations
-- ARGV, then: states; an operation must be in one of them (none: any state)
--
-- Returns {operation, {field, value, …}, …}
local OPERATIONS = KEYS[1]
local STEM, LIMIT = ARGV[1], tonumber(ARGV[2])
local states = {}
for i = 3, #ARGV do
  states[ARGV[i]] = true
end
local answer = {}
for _, operation in ipairs(redis.call('ZREVRANGE', OPERATIONS, 0, -1)) do
  if #answer >= 2 * LIMIT then
    break
  end
  local counts = redis.call('HGETALL', STEM .. operation)
  local state
  for i = 1, #counts, 2 do
    state = counts[i] == 'state' and counts[i + 1] or state
  end
  if not state then
    redis.call('ZREM', OPERATIONS, operation)
  elseif #ARGV < 3 or states[state] then
    answer[#answer + 1] = operation
    answer[#answer + 1] = counts
  end
end
return answer
