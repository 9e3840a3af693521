-- advance: count marks of an operation and tell of what has changed, in order with events of its channel.
--
-- KEYS, ARGV as in _operation.lua, then for each mark: kind, leaf, planned (0 or 1; of plan: how many), hidden (0 or 1), lease (ms), late (0 or 1), about
-- (of failed: what task.failed says, unless the leaf had ended; empty: nothing),
-- and for each event, which nobody has to acknowledge: 'event', id, header, tail
--
-- Returns as _operation.lua's answer, and then the offset of each event; negative: its id was known, the first one's offset
local fresh_leases = false

local function started(leaf, planned, hidden, lease, late, about)
  -- Its publisher may have died before it could tell.
  published(leaf, planned, hidden)
  local is = letter(leaf)
  if is == 'b' then
    return
  end
  if is == 'p' or is == 'l' then
    n.running = n.running + 1
  end
  if is == 'l' then
    n.lost = n.lost - 1
  end
  redis.call('HSET', KEYS[6], leaf, (late == '1' and 'R ' or 'r ') .. about)
  if lease ~= '0' then
    redis.call('ZADD', KEYS[7], now_ms + tonumber(lease), leaf)
    fresh_leases = true
  elseif is ~= 'p' then
    redis.call('ZREM', KEYS[7], leaf)
  end
end

local function released(leaf)
  local is = letter(leaf)
  if is == 'r' or is == 'R' or is == 'l' then
    stop(leaf, is)
    redis.call('HSET', KEYS[6], leaf, 'p')
  end
end

local function count(i)
  local kind, leaf, planned, hidden = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  if kind == 'plan' then
    n.planned = tonumber(planned)
  elseif kind == 'published' then
    published(leaf, planned, hidden)
  elseif kind == 'released' then
    released(leaf)
  else
    -- A hidden leaf, such as the starter, is nothing that a person would call the beginning.
    begun = begun or hidden == '0'
    if kind == 'started' then
      started(leaf, planned, hidden, ARGV[i + 4], ARGV[i + 5], ARGV[i + 6])
    else
      local about = ARGV[i + 6]
      if kind == 'failed' and about ~= '' and not has_ended(leaf) then
        say('task.failed', 'h', 'log', about)
      end
      ended(kind, leaf, planned, hidden, ARGV[i + 4])
    end
  end
end

local function put(id, header, tail)
  local keep, key = 'log', nil
  local word = string.sub(header, 3, 4)
  if word == 'la' then
    keep, key = 'latest', string.match(header, '^%a latest %d+ %d+ %S+ %S+ (.*)$')
  elseif word == 'no' then
    keep = 'nothing'
  end
  return append(id, keep, key, header, tail)
end

local places, counted = {}, false
local i = OPTIONS + 1
while i <= #ARGV do
  if ARGV[i] == 'event' then
    -- What the marks before it have changed is told before it.
    if counted then
      catch_up()
      counted = false
    end
    places[#places + 1] = put(ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])
    i = i + 4
  else
    if not ENDED[n.state] then
      count(i)
      counted = true
    end
    i = i + 7
  end
end
settle()
if fresh_leases then
  redis.call('EXPIRE', KEYS[7], math.ceil(KEPT_FOR * 1.125))
end
local found = answer()
for _, place in ipairs(places) do
  found[#found + 1] = place
end
return found
