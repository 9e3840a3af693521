-- Entries: a user's pending events and dead letters. It comes after _lists.lua, before _pending.lua or
-- the verb. An event leaves these lists only if a client acknowledges it, if it expires, or if an
-- operator removes it. An undeliverable event moves to the dead letters in the same step.
--
-- KEYS[1..4]       as in _channel.lua
-- KEYS[5] pending  hash  event id -> entry: a line "epoch lane attempts first next expires requeues",
--                  then the record
-- KEYS[6..8]       list  event ids of the high, normal and low lane, the oldest at the left
-- KEYS[9] dead     hash  event id -> entry: a line "reason attempts first died requeues", then the
--                  record or its bytes
-- KEYS[10]         list  ids of the dead letters, the longest dead at the left
-- KEYS[11] acked   zset  event id -> time of the acknowledgement (ms)
-- KEYS[12]         hash  as in _lists.lua
--
-- ARGV, after the channel's options: pending limit (entries of a lane), acknowledgement timeout
-- (ms), attempts, dead letter limit (entries), life of dead letters (s), life of the channel (s)
--
-- Constants from Python: ACKED_LIMIT (ids), LONGEST_PAUSE (ms), SLACK.
local PENDING, DEAD, ACKED = KEYS[5], KEYS[9], KEYS[11]
local PENDING_LIMIT, ACK_TIMEOUT = tonumber(ARGV[last_arg + 1]), tonumber(ARGV[last_arg + 2])
local ATTEMPTS, DEAD_LIMIT = tonumber(ARGV[last_arg + 3]), tonumber(ARGV[last_arg + 4])
local DEAD_LIFE, CHANNEL_LIFE = tonumber(ARGV[last_arg + 5]), tonumber(ARGV[last_arg + 6])
last_arg = last_arg + 6

local clock = call('TIME')
local now_ms = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)

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

local function remove_pending(id, lane)
  call('HDEL', PENDING, id)
  remove_id(lane, id)
end
