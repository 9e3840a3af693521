-- changes: read what was revoked since a change.
--
-- KEYS: as in _revocations.lua
-- ARGV: number of the last known change, limit (entries)
--
-- Returns {member, entry, number, …}, by number. Entries that are over are left out.
local reply = {}
local found = call('ZRANGEBYSCORE', CHANGES, '(' .. ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, tonumber(ARGV[2]))
for i = 1, #found, 2 do
  reply[#reply + 1] = found[i]
  reply[#reply + 1] = call('HGET', ENTRIES, found[i]) or ''
  reply[#reply + 1] = string.format('%d', tonumber(found[i + 1]))
end
return reply
