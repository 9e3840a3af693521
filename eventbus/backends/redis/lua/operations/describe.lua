-- describe: one operation, and what runs of it.
--
-- KEYS[1] counts, KEYS[2] leaves, KEYS[3] leases: KEYS[5..7] of _operation.lua
-- ARGV[1] running leaves at most
--
-- Returns {{field, value, …} of the counts, {leaf, value of the leaf, …}}
local running = {}
for _, leaf in ipairs(redis.call('ZRANGE', KEYS[3], 0, tonumber(ARGV[1]) - 1)) do
  running[#running + 1] = leaf
  running[#running + 1] = redis.call('HGET', KEYS[2], leaf) or ''
end
return { redis.call('HGETALL', KEYS[1]), running }
