-- reschedule_check: set the time of the next check of an operation's leases.
--
-- KEYS[1] index  zset  "channel operation" -> time of the next check (ms)
-- ARGV: member, score with which the checker claimed it, next check (ms; 0: the operation has ended)
--
-- A start of a task lowers the score. If the score is still the claim, no task has started since
-- the check.
local INDEX = KEYS[1]
local MEMBER, CLAIM, NEXT = ARGV[1], ARGV[2], ARGV[3]
if redis.call('ZSCORE', INDEX, MEMBER) ~= CLAIM then
  if NEXT ~= '0' then
    redis.call('ZADD', INDEX, 'XX', 'LT', NEXT, MEMBER)
  end
elseif NEXT == '0' then
  redis.call('ZREM', INDEX, MEMBER)
else
  redis.call('ZADD', INDEX, 'XX', NEXT, MEMBER)
end
return 1
