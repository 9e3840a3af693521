-- publish: many events of one channel, in order: drop known ids, number, keep, publish.
--
-- KEYS, ARGV[1..3]  as in _channel.lua; with _pending.lua before it as there
-- then for each event: id, header, tail
--
-- Returns words: epoch, end of the channel, receivers, states pruned; and where an id was known also the offset of each event;
-- negative: its id was known, the first one's offset. Without them they are the last ones up to the end. A string of words, since
-- a table costs Redis a microsecond and a half.
local FIRST = OPTIONS + 1

-- All ids go into the window with one command. If one of them was known, or comes twice, all that were new are taken out again,
-- and each event looks for itself.
local new = true
local step = 3 * 1000 -- unpack has a limit
for from = FIRST, #ARGV, step do
  local ids = {}
  for i = from, math.min(from + step, #ARGV + 1) - 1, 3 do
    ids[#ids + 1] = text(before + 1 + (i - FIRST) / 3)
    ids[#ids + 1] = ARGV[i]
  end
  if call('ZADD', KEYS[4], 'NX', unpack(ids)) < #ids / 2 then
    call('ZREMRANGEBYSCORE', KEYS[4], '(' .. text(before), '+inf')
    new = false
    break
  end
end

local words, owing = {}, false
for i = FIRST, #ARGV, 3 do
  local id, header, tail = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  -- The word in the header that says how the event is kept: log, ack, latest or nothing.
  local word = string.sub(header, 3, 4)
  local keep, key = 'log', nil
  if word == 'la' then
    keep, key = 'latest', string.match(header, '^%a latest %d+ %d+ %S+ %S+ (.*)$')
  elseif word == 'no' then
    keep = 'nothing'
  end
  local place
  if new then
    place = append_new(keep, key, header, tail)
  else
    place = append(id, keep, key, header, tail)
    words[#words + 1] = ' ' .. text(place)
  end
  if word == 'ac' and place > 0 then
    -- The promise to a user ends with the event, or with the life that the channel gives it.
    local lane, expires, emitted = string.match(header, '^(%a) ack (%d+) (%d+) ')
    local ends = expires ~= '0' and tonumber(expires) or math.floor(tonumber(emitted) / 1000) + LIFE * 1000
    owe(id, epoch, LANES[lane], ends, 0, records[#records])
    owing = true
  end
end
local in_epoch, receivers, pruned = close()
if owing then
  pending_live_on(2 * math.max(lasts - tonumber(clock[1]), 1))
end
return in_epoch .. ' ' .. text(offset) .. ' ' .. receivers .. ' ' .. pruned .. table.concat(words)
