-- purge: a person wants dead letters gone.
--
-- KEYS, ARGV as in _pending.lua (alone), then: id, …
--
-- Returns how many went
local gone = 0
for i = OPTIONS + 1, #ARGV do
  gone = gone + redis.call('HDEL', KEYS[9], ARGV[i])
  redis.call('ZREM', KEYS[10], ARGV[i])
end
return gone
