-- revoke: an operator or the application ends sessions, or refuses tokens.
--
-- KEYS: as in _revocations.lua
-- ARGV: kind and subject, issued before (s; 0: now, -1: not about that), life (s), limit (entries), by,
--       reason, pub/sub channel
--
-- Returns {1, entry, number}; or {0}: there are too many entries.
--
-- The number of a change grows, also after Redis has lost its data: it is at least the time in
-- microseconds. A reader asks for the changes above the last number that it knows.
local member, before, life = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
for _, old in ipairs(call('ZRANGEBYSCORE', EXPIRY, '-inf', now_ms, 'LIMIT', 0, 1000)) do
  call('HDEL', ENTRIES, old)
  call('ZREM', CHANGES, old)
  call('ZREM', EXPIRY, old)
end
local known = call('HGET', ENTRIES, member)
if not known and call('HLEN', ENTRIES) >= tonumber(ARGV[4]) then
  return { 0 }
end
if before == 0 then
  -- The next whole second: tokens have whole seconds, and those of this second count as earlier.
  before = now_s + 1
end
local ends = now_ms + life * 1000
if known then
  -- A revocation never lets in what the one before has refused.
  local earlier, _, later = string.match(known, '^(%-?%d+) (%d+) (%d+)')
  before = math.max(before, tonumber(earlier))
  ends = math.max(ends, tonumber(later))
end
local entry = string.format('%d %d %d\n%s\n%s', before, now_ms, ends, ARGV[5], ARGV[6])
local last = call('ZRANGE', CHANGES, -1, -1, 'WITHSCORES')
local number = math.max(now_s * 1000000 + now_us, tonumber(last[2] or 0) + 1)
call('HSET', ENTRIES, member, entry)
call('ZADD', CHANGES, string.format('%d', number), member)
call('ZADD', EXPIRY, string.format('%d', ends), member)
-- Some longer than the last entry, so that an EXPIRE of seconds is never too short.
local longest = tonumber(call('ZRANGE', EXPIRY, -1, -1, 'WITHSCORES')[2]) + 60000
for _, key in ipairs(KEYS) do
  call('PEXPIREAT', key, string.format('%d', longest))
end
call('PUBLISH', ARGV[7], string.format('%d', number))
return { 1, entry, string.format('%d', number) }
