-- mark: write a mark at one server. If it is there, so is all that was written before it.
--
-- KEYS[1] mark  string  time (ms)
-- ARGV[1] life of the mark (s)
--
-- Returns {time, life of the server}, or an error on a replica
local clock = redis.call('TIME')
local now = string.format('%d', tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000))
redis.call('SET', KEYS[1], now, 'EX', ARGV[1])
return { now, string.sub(string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)'), 1, 10) }
