-- requeue: a person wants dead letters sent again. An id that is not among the dead is left alone, so twice is as good as once.
--
-- KEYS, ARGV as in _pending.lua (after channel), then: id, …
--
-- Returns {epoch, end of the channel, new offset of each id (0: not among the dead, -1: no record that could be sent), …}
local places = {}

local KEEPS = { log = true, ack = true, latest = true, nothing = true }

-- Whether it is an event of ours to the last word. An error further down would leave a step half done: a letter gone,
-- and a log that refuses all that comes after.
local function readable(record)
  local lane, keep = string.match(record, '^%d+ (%a) (%a+) %d+ %d+ %S+ %S+ [^\n]+\n{"offset":%d+,')
  return lane and LANES[lane] and KEEPS[keep]
end

-- The life that the event had from the start, from now on; the rest of the header as it was.
local function renewed(header)
  local lane, keep, expires, emitted, rest = string.match(header, '^(%a) (%a+) (%d+) (%d+) (.*)$')
  local life = tonumber(expires) > 0 and tonumber(expires) - math.floor(tonumber(emitted) / 1000) or 0
  local ends = life > 0 and now_ms + life or 0
  local new = table.concat({ lane, keep, integer(ends), integer(now_ms * 1000), rest }, ' ')
  return new, lane, keep, string.match(rest, '^%S+ %S+ (.*)$'), ends > 0 and ends or now_ms + LIFE * 1000
end

for i = OPTIONS + 1, #ARGV do
  local id = ARGV[i]
  local entry = redis.call('HGET', KEYS[9], id)
  if not entry then
    places[#places + 1] = '0'
  else
    local words, record = read_entry(entry)
    if not readable(record) then
      places[#places + 1] = '-1'
    else
      local header, tail = take_apart(record)
      local new, lane, keep, key, expires = renewed(header)
      redis.call('HDEL', KEYS[9], id)
      redis.call('ZREM', KEYS[10], id)
      redis.call('ZREM', KEYS[4], id)
      append(id, keep == 'ack' and 'log' or keep, key, new, tail)
      if keep == 'ack' then
        lives_until(expires)
        owe(id, epoch, LANES[lane], expires, tonumber(words[5]) + 1, records[#records])
      end
      places[#places + 1] = text(offset)
    end
  end
end
-- Taking an id out may have been the end of its key, which is then new and has no life yet.
fresh_keys = true
close()
pending_live_on(2 * math.max(lasts - tonumber(clock[1]), 1))
return { epoch, text(offset), unpack(places) }
