-- record: count transitions of an operation's tasks and report the changes, in order with events of
-- its channel.
--
-- KEYS, ARGV: as in _operation.lua, then for each transition: kind, task, planned (0 or 1; for
-- plan: the number of tasks), internal (0 or 1), lease (ms; for published and released: the time
-- until the task is due), acks_late (0 or 1), members of a JSON object (for failed: the data of
-- task.failed; empty: report nothing), and for each event without acknowledgement: 'event', id,
-- header, tail
--
-- Returns _operation.lua's answer, then the offset of each event; a negative one means that the id
-- was known and is minus the first event's offset
local fresh_leases = false

local function started(task, planned, internal, lease, acks_late, members)
  -- Its publisher may have died before it could report the publication.
  published(task, planned, internal, 0, members)
  local is = read_task(task)
  if is == 'b' then
    return
  end
  if is == 'p' or is == 'l' then
    n.running = n.running + 1
  end
  if is == 'l' then
    n.lost = n.lost - 1
  end
  call('HSET', TASKS, task, (acks_late == '1' and 'R ' or 'r ') .. members)
  if lease ~= '0' then
    call('ZADD', LEASES, now_ms + tonumber(lease), task)
    fresh_leases = true
  elseif is ~= 'p' then
    call('ZREM', LEASES, task)
  end
end

local function released(task, delay)
  local is, members = read_task(task)
  if is == 'r' or is == 'R' or is == 'l' then
    stop(task, is)
    call('HSET', TASKS, task, 'p ' .. members)
    set_due(delay)
  end
end

local function count(i)
  local kind, task, planned, internal = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  if kind == 'plan' then
    n.planned = tonumber(planned)
  elseif kind == 'published' then
    published(task, planned, internal, tonumber(ARGV[i + 4]), ARGV[i + 6])
  elseif kind == 'released' then
    released(task, tonumber(ARGV[i + 4]))
  else
    -- An internal task, such as the starter, does not begin the operation for a user.
    begun = begun or internal == '0'
    if kind == 'started' then
      started(task, planned, internal, ARGV[i + 4], ARGV[i + 5], ARGV[i + 6])
    else
      local members = ARGV[i + 6]
      if kind == 'failed' and members ~= '' and not has_ended(task) then
        append_event('task.failed', members)
      end
      ended(kind, task, planned, internal, ARGV[i + 4])
    end
  end
end

local function put(id, header, tail)
  local keep, key = 'log', nil
  local code = string.sub(header, 3, 4)
  if code == 'la' then
    keep, key = 'latest', string.match(header, '^%a latest %d+ %d+ %S+ %S+ (.*)$')
  elseif code == 'no' then
    keep = 'nothing'
  end
  return append(id, keep, key, header, tail)
end

n.heard = now_ms
local offsets, counted = {}, false
local i = last_arg + 1
while i <= #ARGV do
  if ARGV[i] == 'event' then
    -- Changes of the transitions before the event are reported before it.
    if counted then
      update_state()
      counted = false
    end
    offsets[#offsets + 1] = put(ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])
    i = i + 4
  else
    if not ENDED[n.state] then
      count(i)
      counted = true
    end
    i = i + 7
  end
end
save()
if fresh_leases then
  call('EXPIRE', LEASES, math.ceil(operation_life() * SLACK))
end
local reply = answer()
for _, place in ipairs(offsets) do
  reply[#reply + 1] = place
end
return reply
