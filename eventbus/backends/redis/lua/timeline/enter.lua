-- enter: note what a process wrote last at each shard. An entry with a later time stays.
--
-- KEYS[1] voters: as in look_up.lua
-- ARGV[1] life of the key (s)
-- ARGV[2..] for each entry: 'process life', time (ms), the rest of the entry
for i = 2, #ARGV, 3 do
  local present = redis.call('HGET', KEYS[1], ARGV[i])
  if not present or tonumber(string.match(present, '^%d+')) <= tonumber(ARGV[i + 1]) then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1] .. ' ' .. ARGV[i + 2])
  end
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
