-- letters: what a user is owed and what was given up on; put between channel (or alone) and the verb.
-- Nothing leaves a list except by acknowledgement, expiry or a person's word; what is given up on is moved, in the same step.
--
-- KEYS[1..4]       as in _channel.lua
-- KEYS[5] pending  hash    event id -> entry: line "epoch lane attempts first next expires requeues", then the record
-- KEYS[6..8]       zset    event id -> offset, of the high, normal and low lane
-- KEYS[9] dead     hash    event id -> entry: line "reason attempts first died requeues", then the record or what could be read
-- KEYS[10] dead:at zset    event id -> when it died (ms)
-- KEYS[11] acked   zset    event id -> when it was acknowledged (ms)
--
-- ARGV, after the channel's options: pending limit (entries of a lane), ack timeout (ms), attempts, dead limit (entries),
-- life of the dead (s), life of the channel (s)
local PENDING_LIMIT, ACK_TIMEOUT = tonumber(ARGV[OPTIONS + 1]), tonumber(ARGV[OPTIONS + 2])
local ATTEMPTS, DEAD_LIMIT = tonumber(ARGV[OPTIONS + 3]), tonumber(ARGV[OPTIONS + 4])
local DEAD_LIFE, LIFE = tonumber(ARGV[OPTIONS + 5]), tonumber(ARGV[OPTIONS + 6])
OPTIONS = OPTIONS + 6
local ACKED_LIMIT = 1000
local LONGEST_PAUSE = 3600000
local LANES = { h = 0, n = 1, l = 2 }

local clock = redis.call('TIME')
local now_ms = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local buried = 0

local function integer(number)
  return string.format('%d', number)
end

-- The first line's words as numbers where they are, and what follows it.
local function read_entry(entry)
  local stop = string.find(entry, '\n', 1, true) or #entry + 1
  local words = {}
  for word in string.gmatch(string.sub(entry, 1, stop - 1), '%S+') do
    words[#words + 1] = word
  end
  return words, string.sub(entry, stop + 1)
end

local function pending(id)
  local entry = redis.call('HGET', KEYS[5], id)
  if not entry then
    return nil
  end
  local words, record = read_entry(entry)
  return {
    epoch = words[1], lane = tonumber(words[2]), attempts = tonumber(words[3]), first = tonumber(words[4]),
    next = tonumber(words[5]), expires = tonumber(words[6]), requeues = tonumber(words[7]), record = record,
  }
end

local function keep_pending(id, e)
  redis.call('HSET', KEYS[5], id, table.concat({ e.epoch, e.lane, integer(e.attempts), integer(e.first), integer(e.next),
    integer(e.expires), integer(e.requeues) }, ' ') .. '\n' .. e.record)
end

local function forget_pending(id, lane)
  redis.call('HDEL', KEYS[5], id)
  redis.call('ZREM', KEYS[6 + lane], id)
end

-- Put an entry among the dead; the oldest of too many go. Returns how many went.
local function bury_entry(id, reason, attempts, first, requeues, content)
  redis.call('HSET', KEYS[9], id, table.concat({ reason, integer(attempts), integer(first), integer(now_ms),
    integer(requeues) }, ' ') .. '\n' .. content)
  redis.call('ZADD', KEYS[10], integer(now_ms), id)
  local over = redis.call('ZCARD', KEYS[10]) - DEAD_LIMIT
  if over > 0 then
    for _, oldest in ipairs(redis.call('ZRANGE', KEYS[10], 0, over - 1)) do
      redis.call('HDEL', KEYS[9], oldest)
      redis.call('ZREM', KEYS[10], oldest)
    end
  end
  -- With slack: the sweeper removes them one by one when their time has come.
  redis.call('EXPIRE', KEYS[9], math.ceil(DEAD_LIFE * 1.125))
  redis.call('EXPIRE', KEYS[10], math.ceil(DEAD_LIFE * 1.125))
  buried = buried + 1
  return math.max(over, 0)
end

local function bury(id, e, reason)
  forget_pending(id, e.lane)
  bury_entry(id, reason, e.attempts, e.first, e.requeues, e.record)
end

-- Note that a user is owed an event that has just been appended to the channel.
local function owe(id, in_epoch, lane, expires, requeues, record)
  keep_pending(id, { epoch = in_epoch, lane = lane, attempts = 0, first = now_ms, next = now_ms + ACK_TIMEOUT,
    expires = expires, requeues = requeues, record = record })
  redis.call('ZADD', KEYS[6 + lane], string.match(record, '^%d+'), id)
  if redis.call('ZCARD', KEYS[6 + lane]) > PENDING_LIMIT then
    local oldest = redis.call('ZRANGE', KEYS[6 + lane], 0, 0)[1]
    local e = pending(oldest)
    if e then
      bury(oldest, e, 'full')
    else
      -- Its entry was evicted: there is nothing to bury, and what comes is not to be refused for it.
      redis.call('ZREM', KEYS[6 + lane], oldest)
    end
  end
end

-- Have the channel, which is about to be closed, live until an entry ends: its type may grant it more than the channel has.
local function lives_until(ends)
  KEPT_FOR = math.max(KEPT_FOR, math.ceil((ends - now_ms) / 1000))
end

-- Let the lists live as long as the state does: an entry's own end comes first, and the sweeper sees to it.
local function pending_live_on(seconds)
  for i = 5, 8 do
    redis.call('EXPIRE', KEYS[i], seconds)
  end
end

-- Header without offset, and JSON after its first member, of a record.
local function take_apart(record)
  local stop = string.find(record, '\n', 1, true)
  local header = string.match(string.sub(record, 1, stop - 1), '^%d+ (.*)$')
  local tail = string.match(string.sub(record, stop + 1), '^{"offset":%d+,(.*)$')
  return header, tail
end
