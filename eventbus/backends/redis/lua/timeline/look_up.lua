-- look_up: read the registry of a cluster's timelines. See eventbus/backends/redis/timelines/registry.py.
--
-- KEYS[1] timeline  hash  version, lives, forks, pending
-- KEYS[2] voters    hash  'process life' -> 'time of its mark (ms), idle (0 or 1), tag of the mark, life in which it
--   found its last write'
-- ARGV[1] 1: the voters too
--
-- Returns {version, lives, forks, pending, now (ms), voters}
local clock = redis.call('TIME')
local found = redis.call('HMGET', KEYS[1], 'version', 'lives', 'forks', 'pending')
return { found[1] or '0', found[2] or '', found[3] or '', found[4] or '',
  string.format('%d', tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)),
  ARGV[1] == '1' and redis.call('HGETALL', KEYS[2]) or {} }
