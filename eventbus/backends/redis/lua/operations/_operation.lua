-- Operation: the part that every verb of an operation shares. It comes after _channel.lua, before
-- the verb. The rules are those of eventbus/operations/state_machine.py. Counting and publishing
-- are one step: no worker can publish an older count after a newer one, and no process can die
-- between the last task and the event that reports the end.
--
-- KEYS[1..4]          as in _channel.lua
-- KEYS[5] counts      hash  state, the numbers of FIELDS, label, and times: queued, started, heard, ended (ms)
-- KEYS[6] tasks       hash  task -> p published, r running, R running with late acknowledgement, l lost, e ended before
--                           its publication was reported, b both; after p to l a space and members of a JSON object
-- KEYS[7] leases      zset  task -> end of its lease (ms), while it runs or is lost; '' -> end of the wait for tasks of
--                           the plan; SILENCE -> end of the silence
-- KEYS[8] operations  zset  operation of this channel -> first report (ms)
--
-- ARGV, after the channel's options: event id, microseconds since 1970, topic, operation, label
-- (empty: no change), number of operations to keep, milliseconds that an operation may be silent
-- (0: any time)
--
-- Constants from Python: POLICY_OF (event type -> start of its header), DONE, ENDED, SLACK, SILENCE,
-- AWAIT_MS, PARTS_MISSING.
local COUNTS, TASKS, LEASES, OPERATIONS = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local ID, EMITTED, TOPIC = ARGV[last_arg + 1], ARGV[last_arg + 2], ARGV[last_arg + 3]
local OPERATION, LABEL, KEPT = ARGV[last_arg + 4], ARGV[last_arg + 5], tonumber(ARGV[last_arg + 6])
local PART_PATIENCE = tonumber(ARGV[last_arg + 7])
last_arg = last_arg + 7

local FIELDS = {
  'planned', 'dynamic', 'done', 'failed', 'open', 'early', 'opened', 'running', 'lost', 'cancelled', 'queued',
  'started', 'until', 'awaits', 'ignored', 'awaited', 'heard', 'due', 'silence',
}

local clock = call('TIME')
local now_ms = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local known = call('HMGET', COUNTS, 'state', 'label', unpack(FIELDS))
local is_new = not known[1]
local n = { state = known[1] or 'queued' }
local label = LABEL ~= '' and LABEL or known[2] or ''
for i, name in ipairs(FIELDS) do
  n[name] = tonumber(known[i + 2] or '0')
end
local function total()
  return math.max(n.planned + n.dynamic, n.done + n.failed)
end
-- As shown_done() of eventbus/operations/state.py.
local function shown_done()
  local is_full = n.done > 0 and n.done == total() and not ENDED[n.state]
  return is_full and n.done - 1 or n.done
end
local had_ended = ENDED[n.state]
-- Then the key of the tasks is new, too, and has no expiry yet.
local was_empty = n.opened == 0 and n.early == 0
local was_state, was_done, was_failed, was_total = n.state, shown_done(), n.failed, total()
local begun = false

-- State of a task as one character, and the members after it.
local function read_task(task)
  local value = call('HGET', TASKS, task)
  return value and string.sub(value, 1, 1), value and string.sub(value, 3)
end

local function count_dynamic(planned, internal)
  if planned == '0' and internal == '0' then
    n.dynamic = n.dynamic + 1
  end
end

-- Seconds that the operation's keys live from now. Until it has ended it outlives its channel.
local function operation_life()
  if ENDED[n.state] or PART_PATIENCE == 0 then
    return lifetime
  end
  return math.max(lifetime, math.ceil((math.max(n.due - now_ms, 0) + PART_PATIENCE) / 1000) + 60)
end

-- Allow silence until a task is due. delay: milliseconds until then
local function set_due(delay)
  if delay > 0 then
    n.due = math.max(n.due, now_ms + delay)
  end
end

local function published(task, planned, internal, delay, members)
  local is = read_task(task)
  if is == 'e' then
    call('HSET', TASKS, task, 'b')
    n.early, n.opened = n.early - 1, 1
  elseif not is then
    call('HSET', TASKS, task, 'p ' .. members)
    n.open, n.opened = n.open + 1, 1
    count_dynamic(planned, internal)
    set_due(delay)
  end
end

-- The task is no longer running or lost.
local function stop(task, is)
  if is == 'r' or is == 'R' then
    n.running = n.running - 1
  elseif is == 'l' then
    n.lost = n.lost - 1
  end
  if is ~= 'p' then
    call('ZREM', LEASES, task)
  end
end

local function has_ended(task)
  local is = read_task(task)
  return is == 'e' or is == 'b'
end

-- lease: for joined, the time to wait for the chord's body (ms)
local function ended(kind, task, planned, internal, lease)
  if has_ended(task) then
    return
  end
  local is = read_task(task)
  if is then
    stop(task, is)
    call('HSET', TASKS, task, 'b')
    n.open = n.open - 1
  else
    call('HSET', TASKS, task, 'e')
    n.early = n.early + 1
    count_dynamic(planned, internal)
  end
  if internal == '0' then
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

local events = 0
local function append_event(type, data)
  events = events + 1
  local id = ID .. '.' .. events
  local policy = POLICY_OF[type]
  local keep = string.sub(policy, 3)
  local key = keep == 'latest' and TOPIC .. '/' .. type or '-'
  local header = policy .. ' 0 ' .. EMITTED .. ' ' .. type .. ' ' .. TOPIC .. ' ' .. key
  local tail = '"id":"' .. id .. '","type":"' .. type .. '","topic":"' .. TOPIC .. '","time":'
    .. string.sub(EMITTED, 1, -4) .. ',"data":{' .. data .. '}}'
  append(id, keep, key, header, tail)
end

local function report(change)
  append_event('operation.' .. change, '"operation":"' .. OPERATION .. '","label":' .. cjson.encode(label)
    .. ',"state":"' .. n.state .. '","done":' .. text(shown_done())
    .. ',"failed":' .. text(n.failed) .. ',"total":' .. text(total()))
end

local function all_ended()
  return n.opened == 1 and n.open == 0 and n.early == 0
end

-- The plan was reported, or no planned task was.
local function plan_known()
  return n.planned > 0 or n.done <= n.dynamic
end

local function next_state(missing)
  local over, whole = all_ended(), n.done >= n.planned + n.dynamic
  if over and n.failed == 0 and plan_known() and (whole or (n.ignored == 1 and n.cancelled == 0)) then
    return 'succeeded'
  elseif n.cancelled > 0 then
    return (over or n.running == 0) and 'cancelled' or 'cancelling'
  elseif n.open == 0 and n.early == 0 and (n.failed > 0 or missing) then
    return 'failed'
  elseif n.lost > 0 then
    return 'lost'
  end
  return n.state == 'queued' and 'queued' or 'running'
end

-- Begin or end the wait for tasks of the plan. A lease without a task ends the wait.
local function set_awaiting(awaiting)
  if awaiting and n.awaited == 0 then
    call('ZADD', LEASES, now_ms + (n.awaits > 0 and n.awaits or AWAIT_MS), '')
    call('EXPIRE', LEASES, math.ceil(operation_life() * SLACK))
  elseif not awaiting and n.awaited == 1 then
    call('ZREM', LEASES, '')
  end
  n.awaited = awaiting and 1 or 0
end

-- Derive the state and report the changes since the last call. missing: the awaited tasks did not
-- come in time.
local function update_state(missing)
  if ENDED[n.state] then
    return
  end
  if n.queued == 0 then
    n.queued = now_ms
  end
  if n.state == 'queued' and begun then
    n.state, n.started = 'running', now_ms
    report('started')
  end
  local former = n.state
  n.state = next_state(missing)
  set_awaiting(not ENDED[n.state] and all_ended() and n.failed == 0 and plan_known())
  if n.state == 'failed' and n.failed == 0 then
    append_event('task.failed', '"task":"","name":"","retries":0,"error":' .. cjson.encode(PARTS_MISSING))
  end
  if n.state == 'succeeded' then
    n.planned = n.done - n.dynamic
  end
  -- Also for a change of the state alone: the snapshot has only this event, and a new reader must
  -- get the present state from it.
  local changed = n.state ~= was_state or shown_done() ~= was_done or n.failed ~= was_failed or total() ~= was_total
  if changed then
    report('progress')
  end
  if n.state == 'running' and former == 'lost' then
    report('resumed')
  elseif n.state ~= former and n.state ~= 'queued' and n.state ~= 'running' then
    report(n.state)
  end
  was_state, was_done, was_failed, was_total = n.state, shown_done(), n.failed, total()
end

-- Update the state and save it.
local function save(missing)
  if had_ended then
    return
  end
  update_state(missing)
  if n.silence == 0 and PART_PATIENCE > 0 and not ENDED[n.state] then
    call('ZADD', LEASES, now_ms + PART_PATIENCE, SILENCE)
    call('EXPIRE', LEASES, math.ceil(operation_life() * SLACK))
    n.silence = 1
  end
  -- EXPIRE runs only if the slack is used up, as in close().
  local now, life = tonumber(clock[1]), operation_life()
  local renew = was_empty or n['until'] < now + life
  if renew then
    n['until'] = math.ceil(now + life * SLACK)
  end
  local fields = { 'state', n.state, 'label', label }
  for _, name in ipairs(FIELDS) do
    fields[#fields + 1] = name
    fields[#fields + 1] = text(n[name])
  end
  if ENDED[n.state] then
    fields[#fields + 1], fields[#fields + 2] = 'ended', text(now_ms)
    call('DEL', LEASES)
  end
  call('HSET', COUNTS, unpack(fields))
  if is_new then
    -- Microseconds keep the order of operations that begin within the same millisecond.
    call('ZADD', OPERATIONS, string.format('%.3f', tonumber(clock[1]) * 1000 + tonumber(clock[2]) / 1000), OPERATION)
    call('ZREMRANGEBYRANK', OPERATIONS, 0, -1 - KEPT)
  end
  if renew then
    local seconds = n['until'] - now
    call('EXPIRE', COUNTS, seconds)
    call('EXPIRE', TASKS, seconds)
    call('EXPIRE', LEASES, seconds)
    -- Another operation of the channel may live longer.
    if call('TTL', OPERATIONS) < seconds then
      call('EXPIRE', OPERATIONS, seconds)
    end
  end
end

-- Close the channel. Returns {epoch, end of the channel, receivers, states pruned, state, done,
-- failed, total, end of the next lease (ms; 0: none)}
local function answer()
  local in_epoch, receivers, pruned = close()
  local first = call('ZRANGE', LEASES, 0, 0, 'WITHSCORES')
  return { in_epoch, text(offset), receivers, pruned, n.state, shown_done(), n.failed, total(), first[2] or '0' }
end
