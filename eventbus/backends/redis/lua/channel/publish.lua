-- publish: append events to one channel in order. It deduplicates by id, numbers the events, keeps and
-- publishes them.
--
-- KEYS, ARGV[1..5]: as in _channel.lua. If an event needs an acknowledgement, _pending.lua and what it
-- needs come before this piece.
-- ARGV, then for each event: id, header, tail
--
-- Returns a string of numbers: epoch, end of the channel, receivers, states pruned. If any id was
-- known, the offset of each event follows; a negative one means that the id was known and is minus
-- the first event's offset. Without them the events have the last offsets up to the end. It is a
-- string because a table costs Redis 1.5 microseconds.
local FIRST = last_arg + 1

-- One command adds all ids to the window. If an id was known or comes twice, the new ids are
-- removed again and each event is checked separately.
local all_new = true
local step = 3 * 1000 -- unpack has a limit
for from = FIRST, #ARGV, step do
  local ids = {}
  for i = from, math.min(from + step, #ARGV + 1) - 1, 3 do
    ids[#ids + 1] = text(before + 1 + (i - FIRST) / 3)
    ids[#ids + 1] = ARGV[i]
  end
  if call('ZADD', IDS, 'NX', unpack(ids)) < #ids / 2 then
    call('ZREMRANGEBYSCORE', IDS, '(' .. text(before), '+inf')
    all_new = false
    break
  end
end

local offsets, added_pending = {}, false
for i = FIRST, #ARGV, 3 do
  local id, header, tail = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  -- The header's second field says how the event is kept: log, ack, latest or nothing. Two
  -- characters identify it.
  local code = string.sub(header, 3, 4)
  local keep, key = 'log', nil
  if code == 'la' then
    keep, key = 'latest', string.match(header, '^%a latest %d+ %d+ %S+ %S+ (.*)$')
  elseif code == 'no' then
    keep = 'nothing'
  end
  local place
  if all_new then
    place = append_new(keep, key, header, tail)
  else
    place = append(id, keep, key, header, tail)
    offsets[#offsets + 1] = ' ' .. text(place)
  end
  if code == 'ac' and place > 0 then
    -- The event is pending until it expires, or as long as its channel lives.
    local lane, expires, emitted = string.match(header, '^(%a) ack (%d+) (%d+) ')
    local ends = expires ~= '0' and tonumber(expires) or math.floor(tonumber(emitted) / 1000) + CHANNEL_LIFE * 1000
    add_pending(id, epoch, LANES[lane], ends, 0, records[#records])
    added_pending = true
  end
end
local in_epoch, receivers, pruned = close()
if added_pending then
  expire_pending(2 * math.max(lives_until - tonumber(clock[1]), 1))
end
return in_epoch .. ' ' .. text(offset) .. ' ' .. receivers .. ' ' .. pruned .. table.concat(offsets)
