-- operations: those of one channel, the newest first. What has expired is taken out on the way.
--
-- KEYS[1] operations  as KEYS[8] of _operation.lua
-- ARGV[1] stem of the counts' keys, which are in the same slot; ARGV[2] how many at most; then states, of which one has to fit (none: any)
--
-- Returns {operation, {field, value, …}, …}
local wanted = {}
for i = 3, #ARGV do
  wanted[ARGV[i]] = true
end
local answer = {}
for _, operation in ipairs(redis.call('ZREVRANGE', KEYS[1], 0, -1)) do
  if #answer >= 2 * tonumber(ARGV[2]) then
    break
  end
  local counts = redis.call('HGETALL', ARGV[1] .. operation)
  local state
  for i = 1, #counts, 2 do
    state = counts[i] == 'state' and counts[i + 1] or state
  end
  if not state then
    redis.call('ZREM', KEYS[1], operation)
  elseif #ARGV < 3 or wanted[state] then
    answer[#answer + 1] = operation
    answer[#answer + 1] = counts
  end
end
return answer
