-- list: what the gateway instances say of themselves.
--
-- KEYS[1] leases   zset  'life name' -> end of the lease (ms)
-- KEYS[2] records  hash  'life name' -> JSON
-- Returns, for each instance: 'life name', milliseconds until its lease ends (negative: since it ended), and the JSON.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found = {}
local leases = redis.call('ZREVRANGE', KEYS[1], 0, INSTANCES_LIMIT - 1, 'WITHSCORES')
for i = 1, #leases, 2 do
  local record = redis.call('HGET', KEYS[2], leases[i])
  if record then
    found[#found + 1] = { leases[i], tonumber(leases[i + 1]) - now, record }
  end
end
return found
