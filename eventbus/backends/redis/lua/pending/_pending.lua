-- Pending: a user's pending events and dead letters. It comes after _channel.lua or
-- _standalone.lua, before the verb. An event leaves these lists only if a client acknowledges it,
-- if it expires, or if an operator removes it. An undeliverable event moves to the dead letters in
-- the same step.
--
-- KEYS[1..4]       as in _channel.lua
-- KEYS[5] pending  hash  event id -> entry: a line "epoch lane attempts first next expires requeues", then the record
-- KEYS[6..8]       zset  event id -> offset, for the high, normal and low lane
-- KEYS[9] dead     hash  event id -> entry: a line "reason attempts first died requeues", then the record or its bytes
-- KEYS[10] dead:at zset  event id -> time of death (ms)
-- KEYS[11] acked   zset  event id -> time of the acknowledgement (ms)
--
-- ARGV, after the channel's options: pending limit (entries of a lane), acknowledgement timeout
-- (ms), attempts, dead letter limit (entries), life of dead letters (s), life of the channel (s)
--
-- Constants from Python: ACKED_LIMIT (ids), LONGEST_PAUSE (ms), LANES (initial -> number), SLACK.
local PENDING, FIRST_LANE, DEAD, DEAD_AT, ACKED = KEYS[5], 6, KEYS[9], KEYS[10], KEYS[11]
local PENDING_LIMIT, ACK_TIMEOUT = tonumber(ARGV[last_arg + 1]), tonumber(ARGV[last_arg + 2])
local ATTEMPTS, DEAD_LIMIT = tonumber(ARGV[last_arg + 3]), tonumber(ARGV[last_arg + 4])
local DEAD_LIFE, CHANNEL_LIFE = tonumber(ARGV[last_arg + 5]), tonumber(ARGV[last_arg + 6])
last_arg = last_arg + 6

local clock = call('TIME')
local now_ms = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local dead_lettered = 0

local function integer(number)
  return string.format('%d', number)
end

-- Split an entry into the fields of its first line and the rest.
local function split_entry(entry)
  local stop = string.find(entry, '\n', 1, true) or #entry + 1
  local fields = {}
  for field in string.gmatch(string.sub(entry, 1, stop - 1), '%S+') do
    fields[#fields + 1] = field
  end
  return fields, string.sub(entry, stop + 1)
end

local function read_pending(id)
  local entry = call('HGET', PENDING, id)
  if not entry then
    return nil
  end
  local fields, record = split_entry(entry)
  return {
    epoch = fields[1], lane = tonumber(fields[2]), attempts = tonumber(fields[3]), first = tonumber(fields[4]),
    next = tonumber(fields[5]), expires = tonumber(fields[6]), requeues = tonumber(fields[7]), record = record,
  }
end

local function save_pending(id, e)
  call('HSET', PENDING, id, table.concat({ e.epoch, e.lane, integer(e.attempts), integer(e.first), integer(e.next),
    integer(e.expires), integer(e.requeues) }, ' ') .. '\n' .. e.record)
end

local function remove_pending(id, lane)
  call('HDEL', PENDING, id)
  call('ZREM', KEYS[FIRST_LANE + lane], id)
end

-- Add a dead letter. If there are too many, the oldest are removed.
local function add_dead(id, reason, attempts, first, requeues, content)
  call('HSET', DEAD, id, table.concat({ reason, integer(attempts), integer(first), integer(now_ms),
    integer(requeues) }, ' ') .. '\n' .. content)
  call('ZADD', DEAD_AT, integer(now_ms), id)
  local over = call('ZCARD', DEAD_AT) - DEAD_LIMIT
  if over > 0 then
    for _, oldest in ipairs(call('ZRANGE', DEAD_AT, 0, over - 1)) do
      call('HDEL', DEAD, oldest)
      call('ZREM', DEAD_AT, oldest)
    end
  end
  -- With slack: the sweeper removes each dead letter when its time is over.
  call('EXPIRE', DEAD, math.ceil(DEAD_LIFE * SLACK))
  call('EXPIRE', DEAD_AT, math.ceil(DEAD_LIFE * SLACK))
  dead_lettered = dead_lettered + 1
end

local function dead_letter(id, e, reason)
  remove_pending(id, e.lane)
  add_dead(id, reason, e.attempts, e.first, e.requeues, e.record)
end

-- Add an event that was just appended to the channel to the pending events.
local function add_pending(id, in_epoch, lane, expires, requeues, record)
  save_pending(id, { epoch = in_epoch, lane = lane, attempts = 0, first = now_ms, next = now_ms + ACK_TIMEOUT,
    expires = expires, requeues = requeues, record = record })
  call('ZADD', KEYS[FIRST_LANE + lane], string.match(record, '^%d+'), id)
  if call('ZCARD', KEYS[FIRST_LANE + lane]) > PENDING_LIMIT then
    local oldest = call('ZRANGE', KEYS[FIRST_LANE + lane], 0, 0)[1]
    local e = read_pending(oldest)
    if e then
      dead_letter(oldest, e, 'full')
    else
      -- Redis evicted its entry, so there is no dead letter to write. The new event is accepted all
      -- the same.
      call('ZREM', KEYS[FIRST_LANE + lane], oldest)
    end
  end
end

-- Keep the channel until an entry ends: an event class may have a longer ttl than its channel. Call
-- it before close().
local function keep_channel_until(ends)
  lifetime = math.max(lifetime, math.ceil((ends - now_ms) / 1000))
end

-- Let the lists live as long as the channel's state. Entries expire earlier; the sweeper moves them
-- to the dead letters.
local function expire_pending(seconds)
  call('EXPIRE', PENDING, seconds)
  for lane = 0, 2 do
    call('EXPIRE', KEYS[FIRST_LANE + lane], seconds)
  end
end

-- Split a record into its header without the offset and its JSON after the first member.
local function split_record(record)
  local stop = string.find(record, '\n', 1, true)
  local header = string.match(string.sub(record, 1, stop - 1), '^%d+ (.*)$')
  local tail = string.match(string.sub(record, stop + 1), '^{"offset":%d+,(.*)$')
  return header, tail
end
