-- settle: what a sweep found, into the index and the totals.
--
-- KEYS[1] index  zset  channel -> when to look (ms)
-- KEYS[2] totals hash  pending, dead
-- KEYS[3] dead   zset  channel -> when its oldest dead letter died (ms)
-- ARGV: channel, score that the sweeper has claimed it with, when to look (ms; 0: nothing is left),
--       change of pending, change of dead, when the oldest died (ms; 0: none), life of the keys (s)
--
-- Whoever publishes lowers the score. So if it is the claimed one still, nothing has come since the sweep.
if ARGV[3] ~= '0' then
  redis.call('ZADD', KEYS[1], 'XX', 'LT', ARGV[3], ARGV[1])
elseif redis.call('ZSCORE', KEYS[1], ARGV[1]) == ARGV[2] then
  redis.call('ZREM', KEYS[1], ARGV[1])
end
redis.call('HINCRBY', KEYS[2], 'pending', ARGV[4])
redis.call('HINCRBY', KEYS[2], 'dead', ARGV[5])
if ARGV[6] == '0' then
  redis.call('ZREM', KEYS[3], ARGV[1])
else
  redis.call('ZADD', KEYS[3], ARGV[6], ARGV[1])
end
for i = 1, 3 do
  redis.call('EXPIRE', KEYS[i], ARGV[7])
end
return 1
