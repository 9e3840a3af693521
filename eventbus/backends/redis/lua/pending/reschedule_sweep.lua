-- reschedule_sweep: write a sweep's results into the index and the totals.
--
-- KEYS[1] index   zset  channel -> time of the next sweep (ms)
-- KEYS[2] totals  hash  pending, dead
-- KEYS[3] oldest  zset  channel -> time of death of its oldest dead letter (ms)
-- ARGV: channel, score with which the sweeper claimed it, next sweep (ms; 0: nothing is left),
--       change of pending, change of dead, death of the oldest dead letter (ms; 0: none), life of the keys (s)
--
-- Publishers lower the score. If the score is still the claim, no event came since the sweep.
local INDEX, TOTALS, OLDEST = KEYS[1], KEYS[2], KEYS[3]
local CHANNEL, CLAIM, NEXT, LIFE = ARGV[1], ARGV[2], ARGV[3], ARGV[7]
if NEXT ~= '0' then
  redis.call('ZADD', INDEX, 'XX', 'LT', NEXT, CHANNEL)
elseif redis.call('ZSCORE', INDEX, CHANNEL) == CLAIM then
  redis.call('ZREM', INDEX, CHANNEL)
end
redis.call('HINCRBY', TOTALS, 'pending', ARGV[4])
redis.call('HINCRBY', TOTALS, 'dead', ARGV[5])
if ARGV[6] == '0' then
  redis.call('ZREM', OLDEST, CHANNEL)
else
  redis.call('ZADD', OLDEST, ARGV[6], CHANNEL)
end
redis.call('EXPIRE', INDEX, LIFE)
redis.call('EXPIRE', TOTALS, LIFE)
redis.call('EXPIRE', OLDEST, LIFE)
return 1
