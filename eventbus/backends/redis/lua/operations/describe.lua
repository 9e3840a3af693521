-- describe: read one operation and its running tasks.
--
-- KEYS[1] counts, KEYS[2] tasks, KEYS[3] leases: KEYS[5..7] of _operation.lua
-- ARGV[1] maximum number of running tasks
--
-- Returns {{field, value, …} of the counts, {task, value of the task, …}}
local COUNTS, TASKS, LEASES = KEYS[1], KEYS[2], KEYS[3]
local running = {}
for _, task in ipairs(redis.call('ZRANGE', LEASES, 0, tonumber(ARGV[1]) - 1)) do
  running[#running + 1] = task
  running[#running + 1] = redis.call('HGET', TASKS, task) or ''
end
return { redis.call('HGETALL', COUNTS), running }
