-- channel: what every verb that writes to a channel shares; put in front of the verb when it is loaded.
--
-- KEYS[1] state     hash    epoch, offset, logged, until
-- KEYS[2] log       stream  id offset-0, fields p (offset of the entry before), r (record)
-- KEYS[3] snapshot  hash    conflation key -> record
-- KEYS[4] ids       zset    event id -> offset
--
-- ARGV[1] live            pub/sub channel
-- ARGV[2] fresh epoch     taken if the channel has none
-- ARGV[3] life            seconds that the channel is to live from now; the longest ever asked for counts
--
-- Settings that are the same for every call are constants in front of this file (redis/scripts.py): an argument costs as much
-- as a table access a hundred times. LOG_LIMIT entries, SNAPSHOT_LIMIT keys, WINDOW ids, PUBLISH: PUBLISH or SPUBLISH.
local OPTIONS = 3
local KEPT_FOR = tonumber(ARGV[3])

local call = redis.call
local state = call('HMGET', KEYS[1], 'epoch', 'offset', 'logged', 'until')
local epoch, before, logged, lasts = state[1], tonumber(state[2]), tonumber(state[3]), tonumber(state[4])
if not epoch then
  -- What an evicted state left behind belongs to another life: its offsets mean nothing in this one.
  call('DEL', KEYS[2], KEYS[3], KEYS[4])
  epoch, before, logged, lasts = ARGV[2], 0, 0, 0
end
local offset = before
local records = {}
local new_states = 0
local fresh_keys = offset == 0 or logged == 0

-- %d: a third of the time of %.0f, and as exact; a bare .. rounds from 15 digits on.
local function text(number)
  return string.format('%d', number)
end

-- Append an event whose id is in the window already. Returns its offset.
local function append_new(keep, key, header, tail)
  local place = text(offset + 1)
  local record = place .. ' ' .. header .. '\n{"offset":' .. place .. ',' .. tail
  if keep == 'log' then
    -- Which entry was before it is said only where it is not the one before in number: half of XADD's work is its arguments.
    if logged == offset then
      call('XADD', KEYS[2], place, 'r', record)
    else
      call('XADD', KEYS[2], place, 'p', text(logged), 'r', record)
    end
    logged = offset + 1
  elseif keep == 'latest' then
    new_states = new_states + call('HSET', KEYS[3], key, record)
  end
  offset = offset + 1
  records[#records + 1] = record
  return offset
end

-- Append one event. Returns its offset, or minus the offset of the first event with this id.
local function append(id, keep, key, header, tail)
  if call('ZADD', KEYS[4], 'NX', text(offset + 1), id) == 0 then
    return -tonumber(call('ZSCORE', KEYS[4], id))
  end
  return append_new(keep, key, header, tail)
end

-- Write the state, let the keys live, and publish. Returns epoch, receivers, states pruned.
-- One function: a closure costs a quarter of a microsecond, for each call of the script.
local function close()
  if offset == before then
    return epoch, 0, 0
  end
  -- Window and log are trimmed once in a while: doing it for each event costs more than the few beyond the limits.
  if math.floor(offset / 64) ~= math.floor(before / 64) then
    call('ZREMRANGEBYRANK', KEYS[4], 0, -1 - WINDOW)
    call('XTRIM', KEYS[2], 'MAXLEN', '~', LOG_LIMIT)
  end
  local pruned = 0
  -- Only the newest states stay; done with slack, so that a full snapshot is not scanned for each new key.
  if new_states > 0 and call('HLEN', KEYS[3]) > SNAPSHOT_LIMIT * 1.1 then
    local all, places = call('HGETALL', KEYS[3]), {}
    for i = 1, #all, 2 do
      places[#places + 1] = { tonumber(string.match(all[i + 1], '^%d+')), all[i] }
    end
    table.sort(places, function(a, b) return a[1] > b[1] end)
    for i = SNAPSHOT_LIMIT + 1, #places do
      call('HDEL', KEYS[3], places[i][2])
    end
    pruned = #places - SNAPSHOT_LIMIT
  end
  if before == 0 then
    call('HSET', KEYS[1], 'epoch', epoch, 'offset', text(offset), 'logged', text(logged))
  else
    call('HSET', KEYS[1], 'offset', text(offset), 'logged', text(logged))
  end
  -- EXPIRE is asked for only when an eighth of the life is used up or a key may be new.
  local now = tonumber(call('TIME')[1])
  if lasts < now + KEPT_FOR or fresh_keys or new_states > 0 then
    lasts = math.max(lasts, math.ceil(now + KEPT_FOR * 1.125))
    call('HSET', KEYS[1], 'until', text(lasts))
    for i = 2, 4 do
      call('EXPIRE', KEYS[i], lasts - now)
    end
    -- The state outlives what it describes: a history without its state would have to be thrown away.
    call('EXPIRE', KEYS[1], 2 * (lasts - now))
  end
  local publication = epoch .. ' ' .. text(before) .. '\n' .. table.concat(records, '\n')
  return epoch, call(PUBLISH, ARGV[1], publication), pruned
end
