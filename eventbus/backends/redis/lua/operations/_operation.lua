-- operation: what the verbs of an operation share; put between channel and the verb. The rules are those of eventbus/operations/state.py:
-- one step counts and tells, so that no worker can tell an older count after a newer one, and nobody can die between the
-- last leaf and the word that it was the last.
--
-- KEYS[1..4]          as in _channel.lua
-- KEYS[5] counts      hash  state and the numbers of FIELDS; label; when it was queued, started, heard of, ended (ms)
-- KEYS[6] leaves      hash  leaf -> p published, r runs, R runs and would come again, l lost, e ended before its publication was
--                           heard of, b both; after r, R and l a space and the task, as members of a JSON object
-- KEYS[7] leases      zset  leaf -> when to look at it (ms): it runs, or is lost; of the empty one: until when something is awaited
-- KEYS[8] operations  zset  operation of this channel -> when it was first heard of (ms)
--
-- ARGV, after the channel's options: event id, microseconds since 1970, topic, operation, label (empty: as it is), operations kept
local ID, EMITTED, TOPIC = ARGV[OPTIONS + 1], ARGV[OPTIONS + 2], ARGV[OPTIONS + 3]
local OPERATION, LABEL, KEPT = ARGV[OPTIONS + 4], ARGV[OPTIONS + 5], tonumber(ARGV[OPTIONS + 6])
OPTIONS = OPTIONS + 6

local FIELDS = {
  'planned', 'dynamic', 'done', 'failed', 'open', 'early', 'opened', 'running', 'lost', 'cancelled', 'queued', 'started', 'until',
  'awaits', 'ignored', 'awaited',
}
local WORDS = {
  started = 'n', progress = 'n', lost = 'h', resumed = 'n', cancelling = 'n', succeeded = 'h', failed = 'h', cancelled = 'h',
}
local DONE = { done = true, joined = true, ignored = true }
local ENDED = { succeeded = true, failed = true, cancelled = true }

local clock = redis.call('TIME')
local now_ms = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local known = redis.call('HMGET', KEYS[5], 'state', 'label', unpack(FIELDS))
local is_new = not known[1]
local n = { state = known[1] or 'queued' }
local label = LABEL ~= '' and LABEL or known[2] or ''
for i, name in ipairs(FIELDS) do
  n[name] = tonumber(known[i + 2] or '0')
end
local function total()
  return math.max(n.planned + n.dynamic, n.done + n.failed)
end
local was_ended = ENDED[n.state]
-- Then the leaves' key is new, too, and has no life yet.
local was_empty = n.opened == 0 and n.early == 0
local was_done, was_failed, was_total = n.done, n.failed, total()
local begun = false

local function letter(leaf)
  local value = redis.call('HGET', KEYS[6], leaf)
  return value and string.sub(value, 1, 1), value and string.sub(value, 3)
end

local function count_dynamic(planned, hidden)
  if planned == '0' and hidden == '0' then
    n.dynamic = n.dynamic + 1
  end
end

local function published(leaf, planned, hidden)
  local is = letter(leaf)
  if is == 'e' then
    redis.call('HSET', KEYS[6], leaf, 'b')
    n.early, n.opened = n.early - 1, 1
  elseif not is then
    redis.call('HSET', KEYS[6], leaf, 'p')
    n.open, n.opened = n.open + 1, 1
    count_dynamic(planned, hidden)
  end
end

-- It runs no longer, or is lost no longer.
local function stop(leaf, is)
  if is == 'r' or is == 'R' then
    n.running = n.running - 1
  elseif is == 'l' then
    n.lost = n.lost - 1
  end
  if is ~= 'p' then
    redis.call('ZREM', KEYS[7], leaf)
  end
end

local function has_ended(leaf)
  local is = letter(leaf)
  return is == 'e' or is == 'b'
end

-- lease: of joined, for how long the body of its chord is awaited (ms)
local function ended(kind, leaf, planned, hidden, lease)
  if has_ended(leaf) then
    return
  end
  local is = letter(leaf)
  if is then
    stop(leaf, is)
    redis.call('HSET', KEYS[6], leaf, 'b')
    n.open = n.open - 1
  else
    redis.call('HSET', KEYS[6], leaf, 'e')
    n.early = n.early + 1
    count_dynamic(planned, hidden)
  end
  if hidden == '0' then
    if DONE[kind] then
      n.done = n.done + 1
      if kind == 'ignored' then
        n.ignored = 1
      elseif kind == 'joined' then
        n.awaits = math.max(n.awaits, tonumber(lease))
      end
    elseif kind == 'failed' or n.cancelled == 0 then
      n.failed = n.failed + 1
    end
  end
end

local told = 0
local function say(type, lane, keep, data)
  told = told + 1
  local id = ID .. '.' .. told
  local key = keep == 'latest' and TOPIC .. '/' .. type or '-'
  local header = lane .. ' ' .. keep .. ' 0 ' .. EMITTED .. ' ' .. type .. ' ' .. TOPIC .. ' ' .. key
  local tail = '"id":"' .. id .. '","type":"' .. type .. '","topic":"' .. TOPIC .. '","time":' .. string.sub(EMITTED, 1, -4)
    .. ',"data":{' .. data .. '}}'
  append(id, keep, key, header, tail)
end

local function tell(word)
  local data = '"operation":"' .. OPERATION .. '","label":' .. cjson.encode(label) .. ',"state":"' .. n.state .. '","done":'
    .. text(n.done) .. ',"failed":' .. text(n.failed) .. ',"total":' .. text(total())
  say('operation.' .. word, WORDS[word], word == 'progress' and 'latest' or 'log', data)
end

local function is_over()
  return n.opened == 1 and n.open == 0 and n.early == 0
end

local function next_state(missing)
  local over, whole = is_over(), n.done >= n.planned + n.dynamic
  local awaits = n.awaits > 0 and n.ignored == 0
  if over and n.failed == 0 and (whole or (n.cancelled == 0 and not awaits)) then
    return 'succeeded'
  elseif n.cancelled > 0 then
    return (over or n.running == 0) and 'cancelled' or 'cancelling'
  elseif over and (n.failed > 0 or missing) then
    return 'failed'
  elseif n.lost > 0 then
    return 'lost'
  end
  return n.state == 'queued' and 'queued' or 'running'
end

-- Look again when what is awaited should have come.
local function await(so)
  if so and n.awaited == 0 then
    redis.call('ZADD', KEYS[7], now_ms + n.awaits, '')
    redis.call('EXPIRE', KEYS[7], math.ceil(KEPT_FOR * 1.125))
  elseif not so and n.awaited == 1 then
    redis.call('ZREM', KEYS[7], '')
  end
  n.awaited = so and 1 or 0
end

-- Derive the state, and tell what has changed since this was last done. missing: what was awaited has not come.
local function catch_up(missing)
  if ENDED[n.state] then
    return
  end
  if n.queued == 0 then
    n.queued = now_ms
  end
  if n.state == 'queued' and begun then
    n.state, n.started = 'running', now_ms
    tell('started')
  end
  local former = n.state
  n.state = next_state(missing)
  await(not ENDED[n.state] and is_over() and n.failed == 0)
  if n.state == 'succeeded' then
    n.planned = n.done - n.dynamic
  end
  if n.done ~= was_done or n.failed ~= was_failed or total() ~= was_total then
    tell('progress')
  end
  if n.state == 'running' and former == 'lost' then
    tell('resumed')
  elseif n.state ~= former and n.state ~= 'queued' and n.state ~= 'running' then
    tell(n.state)
  end
  was_done, was_failed, was_total = n.done, n.failed, total()
end

-- Catch up, and write it down.
local function settle(missing)
  if was_ended then
    return
  end
  catch_up(missing)
  -- Asked for once in a while only: see live_on.
  local now, life = tonumber(clock[1]), KEPT_FOR
  local renew = was_empty or n['until'] < now + life
  if renew then
    n['until'] = math.ceil(now + life * 1.125)
  end
  local fields = { 'state', n.state, 'label', label, 'heard', text(now_ms) }
  for _, name in ipairs(FIELDS) do
    fields[#fields + 1] = name
    fields[#fields + 1] = text(n[name])
  end
  if ENDED[n.state] then
    fields[#fields + 1], fields[#fields + 2] = 'ended', text(now_ms)
    redis.call('DEL', KEYS[7])
  end
  redis.call('HSET', KEYS[5], unpack(fields))
  if is_new then
    -- To the microsecond: of those begun within one, the newest is to come first, too.
    redis.call('ZADD', KEYS[8], string.format('%.3f', tonumber(clock[1]) * 1000 + tonumber(clock[2]) / 1000), OPERATION)
    redis.call('ZREMRANGEBYRANK', KEYS[8], 0, -1 - KEPT)
  end
  if renew then
    for i = 5, 8 do
      redis.call('EXPIRE', KEYS[i], n['until'] - now)
    end
  end
end

-- Close the channel. Returns {epoch, end of the channel, receivers, states pruned, state, done, failed, total, when to look at a lease next}
local function answer()
  local in_epoch, receivers, pruned = close()
  local first = redis.call('ZRANGE', KEYS[7], 0, 0, 'WITHSCORES')
  return { in_epoch, text(offset), receivers, pruned, n.state, n.done, n.failed, total(), first[2] or '0' }
end
