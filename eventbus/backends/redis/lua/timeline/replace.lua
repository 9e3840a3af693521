-- replace: write the registry of a cluster's timelines, unless another process was faster.
--
-- KEYS[1] timeline, KEYS[2] voters: as in look_up.lua
-- ARGV[1] version that the new one replaces
-- ARGV[2..5] version, lives, forks, pending
-- ARGV[6] life of the registry (s)
-- ARGV[7..] voters to remove
--
-- Returns 1 if it was written
if (redis.call('HGET', KEYS[1], 'version') or '0') ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'version', ARGV[2], 'lives', ARGV[3], 'forks', ARGV[4], 'pending', ARGV[5])
redis.call('EXPIRE', KEYS[1], ARGV[6])
for i = 7, #ARGV do
  redis.call('HDEL', KEYS[2], ARGV[i])
end
return 1
