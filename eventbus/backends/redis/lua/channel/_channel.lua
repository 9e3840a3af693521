-- Channel: the part that every verb which writes to a channel shares. It comes after _timeline.lua.
--
-- KEYS[1] state     hash    as in _timeline.lua
-- KEYS[2] log       stream  id offset-0; fields: p (offset of the previous entry), r (record)
-- KEYS[3] snapshot  hash    conflation key -> record
-- KEYS[4] ids       zset    event id -> offset
--
-- ARGV[1..3] as in _timeline.lua
-- ARGV[4] pub/sub channel
-- ARGV[5] lifetime: seconds that the channel lives from now; the longest lifetime requested so far
-- wins
--
-- Constants from Python: LOG_LIMIT (entries), SNAPSHOT_LIMIT (keys), WINDOW (ids), PUBLISH (PUBLISH
-- or SPUBLISH), SLACK, FORMAT (that this script writes), FIRST_LINE_END (names the format in a
-- publication). They are constants because an argument costs a hundred times as much as a
-- table access.
local LOG, SNAPSHOT, IDS = KEYS[2], KEYS[3], KEYS[4]
local LIVE = ARGV[4]
local lifetime = tonumber(ARGV[5])
-- Index of the last argument that was read. Each piece moves it forward.
local last_arg = 5

local epoch, before, logged, lives_until = state[1], tonumber(state[2]), tonumber(state[3]), tonumber(state[4])
if not epoch then
  -- Redis evicted the state. The other keys belong to an earlier epoch, so their offsets mean
  -- nothing in this one.
  call('DEL', LOG, SNAPSHOT, IDS)
  epoch, before, logged, lives_until = NEW_EPOCH, 0, 0, 0
end
local offset = before
local records = {}
local new_states = 0
local fresh_keys = offset == 0 or logged == 0

-- %d takes a third of the time of %.0f and is as exact. A bare .. rounds from 15 digits on.
local function text(number)
  return string.format('%d', number)
end

-- Append an event whose id is in the window already. Returns its offset.
local function append_new(keep, key, header, tail)
  local place = text(offset + 1)
  local record = place .. ' ' .. header .. '\n{"offset":' .. place .. ',' .. tail
  if keep == 'log' then
    -- The entry names the previous one only if offsets are missing between them: arguments are half
    -- of XADD's cost.
    if logged == offset then
      call('XADD', LOG, place, 'r', record)
    else
      call('XADD', LOG, place, 'p', text(logged), 'r', record)
    end
    logged = offset + 1
  elseif keep == 'latest' then
    new_states = new_states + call('HSET', SNAPSHOT, key, record)
  end
  offset = offset + 1
  records[#records + 1] = record
  return offset
end

-- Append one event. Returns its offset, or minus the offset of the first event with this id.
local function append(id, keep, key, header, tail)
  if call('ZADD', IDS, 'NX', text(offset + 1), id) == 0 then
    return -tonumber(call('ZSCORE', IDS, id))
  end
  return append_new(keep, key, header, tail)
end

-- Save the state, renew the keys' lifetime and publish the records. Returns epoch, receivers,
-- states pruned. This is one function because each closure costs a quarter of a microsecond in each
-- call of the script.
local function close()
  if offset == before then
    return epoch, 0, 0
  end
  -- Window and log are trimmed once in 64 offsets: to trim for each event costs more than the few
  -- extra entries.
  if math.floor(offset / 64) ~= math.floor(before / 64) then
    call('ZREMRANGEBYRANK', IDS, 0, -1 - WINDOW)
    call('XTRIM', LOG, 'MAXLEN', '~', LOG_LIMIT)
  end
  local pruned = 0
  -- Only the newest states stay. The slack of a tenth avoids a scan of a full snapshot for each new
  -- key.
  if new_states > 0 and call('HLEN', SNAPSHOT) > SNAPSHOT_LIMIT * 1.1 then
    local all, places = call('HGETALL', SNAPSHOT), {}
    for i = 1, #all, 2 do
      places[#places + 1] = { tonumber(string.match(all[i + 1], '^%d+')), all[i] }
    end
    table.sort(places, function(a, b) return a[1] > b[1] end)
    for i = SNAPSHOT_LIMIT + 1, #places do
      call('HDEL', SNAPSHOT, places[i][2])
    end
    pruned = #places - SNAPSHOT_LIMIT
  end
  if before == 0 then
    call('HSET', STATE, 'epoch', epoch, 'offset', text(offset), 'logged', text(logged), 'format', FORMAT,
      'timeline', TIMELINE)
  else
    call('HSET', STATE, 'offset', text(offset), 'logged', text(logged))
    if FORMAT > tonumber(state[6] or 1) then
      call('HSET', STATE, 'format', FORMAT)
    end
  end
  -- EXPIRE runs only if the slack is used up or a key may be new.
  local now = tonumber(call('TIME')[1])
  if lives_until < now + lifetime or fresh_keys or new_states > 0 then
    lives_until = math.max(lives_until, math.ceil(now + lifetime * SLACK))
    call('HSET', STATE, 'until', text(lives_until))
    call('EXPIRE', LOG, lives_until - now)
    call('EXPIRE', SNAPSHOT, lives_until - now)
    call('EXPIRE', IDS, lives_until - now)
    -- The state outlives the other keys: without its state a history is unusable.
    call('EXPIRE', STATE, 2 * (lives_until - now))
  end
  local publication = epoch .. ' ' .. text(before) .. FIRST_LINE_END .. table.concat(records, '\n')
  return epoch, call(PUBLISH, LIVE, publication), pruned
end
