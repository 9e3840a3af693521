-- advance: count marks of an operation and tell of what has changed, in one step, so that no worker can
-- tell an older count after a newer one, and nobody can die between the last leaf and the word that it was the last.
-- The rules are those of eventbus/tally.py.
--
-- KEYS[1..4]        as in channel.lua
-- KEYS[5] counts    hash    state, planned, dynamic, done, failed, open, early, opened
-- KEYS[6] leaves    hash    leaf -> p (published), e (ended, publication not heard of yet), b (both)
--
-- ARGV[1..7]        as in channel.lua
-- then four times   id, key, header, tail up to the payload's first member: of started, progress, succeeded, failed
-- then for each mark: kind (plan, published, started, done, failed), leaf, planned, hidden (0 or 1)
--
-- Returns {epoch, end of the channel, receivers, states pruned, state, done, failed, total}
local FIELDS = { 'planned', 'dynamic', 'done', 'failed', 'open', 'early', 'opened' }
local known = redis.call('HMGET', KEYS[5], 'state', unpack(FIELDS))
local n = { state = known[1] or 'queued' }
for i, name in ipairs(FIELDS) do
  n[name] = tonumber(known[i + 1] or '0')
end
local function total()
  return math.max(n.planned + n.dynamic, n.done + n.failed)
end
local was_ended = n.state == 'succeeded' or n.state == 'failed'
local was_done, was_failed, was_total = n.done, n.failed, total()
local begun = false

local function count_dynamic(planned, hidden)
  if planned == '0' and hidden == '0' then
    n.dynamic = n.dynamic + 1
  end
end

local function published(leaf, planned, hidden)
  local mark = redis.call('HGET', KEYS[6], leaf)
  if mark == 'e' then
    redis.call('HSET', KEYS[6], leaf, 'b')
    n.early, n.opened = n.early - 1, 1
  elseif not mark then
    redis.call('HSET', KEYS[6], leaf, 'p')
    n.open, n.opened = n.open + 1, 1
    count_dynamic(planned, hidden)
  end
end

local function ended(kind, leaf, planned, hidden)
  local mark = redis.call('HGET', KEYS[6], leaf)
  if mark == 'p' then
    redis.call('HSET', KEYS[6], leaf, 'b')
    n.open = n.open - 1
  elseif not mark then
    redis.call('HSET', KEYS[6], leaf, 'e')
    n.early = n.early + 1
    count_dynamic(planned, hidden)
  else
    return
  end
  if hidden == '0' then
    n[kind] = n[kind] + 1
  end
end

local MARKS = OPTIONS + 16
if not was_ended then
  for i = MARKS + 1, #ARGV, 4 do
    local kind, leaf, planned, hidden = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
    if kind == 'plan' then
      n.planned = tonumber(planned)
    elseif kind == 'published' then
      published(leaf, planned, hidden)
    else
      -- A hidden leaf, such as the starter, is nothing that a person would call the beginning.
      begun = begun or hidden == '0'
      if kind == 'started' then
        -- Its publisher may have died before it could tell.
        published(leaf, planned, hidden)
      else
        ended(kind, leaf, planned, hidden)
      end
    end
  end
end

local function tell(which, keep)
  local at = OPTIONS + which * 4
  local data = '"state":"' .. n.state .. '","done":' .. text(n.done) .. ',"failed":' .. text(n.failed)
    .. ',"total":' .. text(total()) .. '}}'
  append(ARGV[at + 1], keep, ARGV[at + 2], ARGV[at + 3], ARGV[at + 4] .. data)
end

if not was_ended then
  if n.state == 'queued' and begun then
    n.state = 'running'
    tell(0, 'log')
  end
  if n.opened == 1 and n.open == 0 and n.early == 0 then
    n.state = n.failed > 0 and 'failed' or 'succeeded'
    if n.state == 'succeeded' then
      n.planned = n.done - n.dynamic
    end
  end
  if n.done ~= was_done or n.failed ~= was_failed or total() ~= was_total then
    tell(1, 'latest')
  end
  if n.state == 'succeeded' then
    tell(2, 'log')
  elseif n.state == 'failed' then
    tell(3, 'log')
  end
  local fields = { 'state', n.state }
  for _, name in ipairs(FIELDS) do
    fields[#fields + 1] = name
    fields[#fields + 1] = text(n[name])
  end
  redis.call('HSET', KEYS[5], unpack(fields))
end
local in_epoch, receivers, pruned = close()
-- Marks alone publish nothing, and leaves may be new: their life is renewed here.
for i = 5, 6 do
  redis.call('EXPIRE', KEYS[i], math.ceil(tonumber(ARGV[7]) * 1.125))
end
return { in_epoch, text(offset), receivers, pruned, n.state, n.done, n.failed, total() }
