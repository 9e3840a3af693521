-- renew: take or renew the lease of a gateway instance.
--
-- KEYS[1] leases   zset  'life name' -> end of the lease (ms)
-- KEYS[2] records  hash  'life name' -> JSON
-- ARGV: life, name, record, lease (ms), how long an ended lease is remembered (ms)
-- Returns 1 if the lease was still held (else 0), and the number of other held leases of the same name.
--
-- The time is Redis' own: the clocks of the instances may differ.
local LEASES, RECORDS = KEYS[1], KEYS[2]
local LIFE, NAME, RECORD, LEASE, KEPT = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local member = LIFE .. ' ' .. NAME

for _, ended in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', now - KEPT, 'LIMIT', 0, INSTANCES_LIMIT)) do
  redis.call('ZREM', LEASES, ended)
  redis.call('HDEL', RECORDS, ended)
end

local held = tonumber(redis.call('ZSCORE', LEASES, member) or 0) > now
redis.call('ZADD', LEASES, now + LEASE, member)
redis.call('HSET', RECORDS, member, RECORD)
redis.call('PEXPIRE', LEASES, 2 * KEPT + LEASE)
redis.call('PEXPIRE', RECORDS, 2 * KEPT + LEASE)

local namesakes = 0
for _, other in ipairs(redis.call('ZRANGEBYSCORE', LEASES, now, '+inf', 'LIMIT', 0, INSTANCES_LIMIT)) do
  if other ~= member and other:sub(#LIFE + 2) == NAME then
    namesakes = namesakes + 1
  end
end
return { held and 1 or 0, namesakes }
