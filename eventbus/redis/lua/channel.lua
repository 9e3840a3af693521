-- channel: what every verb that writes to a channel shares; put in front of the verb when it is loaded.
--
-- KEYS[1] state     hash    epoch, offset, logged, until
-- KEYS[2] log       stream  id offset-0, fields p (offset of the entry before), r (record)
-- KEYS[3] snapshot  hash    conflation key -> record
-- KEYS[4] ids       zset    event id -> offset
--
-- ARGV[1] live            pub/sub channel
-- ARGV[2] fresh epoch     taken if the channel has none
-- ARGV[3] log limit       entries
-- ARGV[4] snapshot limit  keys
-- ARGV[5] dedup window    ids
-- ARGV[6] sharded         1: SPUBLISH
-- ARGV[7] life            seconds that the channel is to live from now; the longest ever asked for counts
local OPTIONS = 7

local state = redis.call('HMGET', KEYS[1], 'epoch', 'offset', 'logged', 'until')
local epoch, before, logged, lasts = state[1], tonumber(state[2]), tonumber(state[3]), tonumber(state[4])
if not epoch then
  -- What an evicted state left behind belongs to another life: its offsets mean nothing in this one.
  redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
  epoch, before, logged, lasts = ARGV[2], 0, 0, 0
end
local offset = before
local records = {}
local new_states = 0
local fresh_keys = offset == 0 or logged == 0

local function text(number)
  return string.format('%.0f', number)
end

-- Append one event. Returns its offset, or minus the offset of the first event with this id.
local function append(id, keep, key, header, tail)
  local place = text(offset + 1)
  if redis.call('ZADD', KEYS[4], 'NX', place, id) == 0 then
    return -tonumber(redis.call('ZSCORE', KEYS[4], id))
  end
  offset = offset + 1
  local record = place .. ' ' .. header .. '\n{"offset":' .. place .. ',' .. tail
  if keep == 'log' then
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], place .. '-0', 'p', text(logged), 'r', record)
    logged = offset
  elseif keep == 'latest' then
    new_states = new_states + redis.call('HSET', KEYS[3], key, record)
  end
  records[#records + 1] = record
  return offset
end

-- Keep the newest states only; done with slack, so that a full snapshot is not scanned for each new key.
local function prune()
  local limit = tonumber(ARGV[4])
  if new_states == 0 or redis.call('HLEN', KEYS[3]) <= limit + limit / 10 then
    return 0
  end
  local all, places = redis.call('HGETALL', KEYS[3]), {}
  for i = 1, #all, 2 do
    places[#places + 1] = { tonumber(string.match(all[i + 1], '^%d+')), all[i] }
  end
  table.sort(places, function(a, b) return a[1] > b[1] end)
  for i = limit + 1, #places do
    redis.call('HDEL', KEYS[3], places[i][2])
  end
  return #places - limit
end

-- Let the keys live. EXPIRE is asked for only when an eighth of the life is used up or a key may be new.
local function live_on()
  local now, life = tonumber(redis.call('TIME')[1]), tonumber(ARGV[7])
  if lasts >= now + life and not fresh_keys and new_states == 0 then
    return
  end
  lasts = math.max(lasts, math.ceil(now + life * 1.125))
  redis.call('HSET', KEYS[1], 'until', text(lasts))
  for i = 2, 4 do
    redis.call('EXPIRE', KEYS[i], lasts - now)
  end
  -- The state outlives what it describes: a history without its state would have to be thrown away.
  redis.call('EXPIRE', KEYS[1], 2 * (lasts - now))
end

-- Write the state and publish. Returns epoch, receivers, states pruned.
local function close()
  if offset == before then
    return epoch, 0, 0
  end
  -- The window is trimmed once in a while: doing it for each event costs more than the few ids beyond it.
  if math.floor(offset / 64) ~= math.floor(before / 64) then
    redis.call('ZREMRANGEBYRANK', KEYS[4], 0, -1 - tonumber(ARGV[5]))
  end
  local pruned = prune()
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'offset', text(offset), 'logged', text(logged))
  live_on()
  local publication = epoch .. ' ' .. text(before) .. '\n' .. table.concat(records, '\n')
  local receivers = redis.call(ARGV[6] == '1' and 'SPUBLISH' or 'PUBLISH', ARGV[1], publication)
  return epoch, receivers, pruned
end
