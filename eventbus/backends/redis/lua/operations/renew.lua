-- renew: renew the leases of running tasks, and keep their operation alive while they report nothing.
--
-- KEYS[1] counts, KEYS[2] tasks, KEYS[3] leases, KEYS[4] operations: KEYS[5..8] of _operation.lua
-- ARGV[1] milliseconds until the end of the leases; a later end stays
-- ARGV[2] seconds that the operation lives from now; a longer life stays
-- ARGV, then: tasks; those without a lease get none
--
-- Returns the value of each task
local COUNTS, TASKS, LEASES, OPERATIONS = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local LEASE, LIFE = tonumber(ARGV[1]), tonumber(ARGV[2])
local clock = redis.call('TIME')
local ends = string.format('%d', tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000) + LEASE)
local values = {}
for i = 3, #ARGV do
  redis.call('ZADD', LEASES, 'XX', 'GT', ends, ARGV[i])
  values[#values + 1] = redis.call('HGET', TASKS, ARGV[i])
end
for _, key in ipairs({ COUNTS, TASKS, LEASES, OPERATIONS }) do
  -- EXPIRE has no option GT before Redis 7.
  if redis.call('TTL', key) < LIFE then
    redis.call('EXPIRE', key, LIFE)
  end
end
return values
