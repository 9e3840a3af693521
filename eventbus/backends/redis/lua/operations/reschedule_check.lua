-- look: when an operation's leases are to be looked at again.
--
-- KEYS[1] index  zset  "channel operation" -> when to look (ms)
-- ARGV: member, score that it has been claimed with, when to look (ms; 0: the operation has ended)
--
-- Whoever starts a task lowers the score. So if it is the claimed one still, nothing has started since the look.
if redis.call('ZSCORE', KEYS[1], ARGV[1]) ~= ARGV[2] then
  if ARGV[3] ~= '0' then
    redis.call('ZADD', KEYS[1], 'XX', 'LT', ARGV[3], ARGV[1])
  end
elseif ARGV[3] == '0' then
  redis.call('ZREM', KEYS[1], ARGV[1])
else
  redis.call('ZADD', KEYS[1], 'XX', ARGV[3], ARGV[1])
end
return 1
