-- expire_leases: check an operation's leases. If a lease has expired, the task's worker is gone.
-- The task is lost if Celery delivers its message again, and has failed if not. A lost task that
-- did not restart in time has failed, and so has an operation whose awaited tasks did not come. If
-- no task runs and the operation was silent for too long, its published tasks have failed.
--
-- KEYS, ARGV: as in _operation.lua, then: patience with lost tasks (ms), tasks per call, errors of
-- a lost and of an unreported task
--
-- Returns _operation.lua's answer, then the number of tasks that were lost or failed, and 1 if the
-- operation became lost. The state is empty if the operation is unknown.
if is_new then
  call('DEL', LEASES)
  return { epoch, text(offset), 0, 0, '', 0, 0, 0, '0', 0, 0 }
end
local former, expired, missing, silent = n.state, 0, false, false
local PATIENCE, LIMIT = tonumber(ARGV[last_arg + 1]), tonumber(ARGV[last_arg + 2])
local LOST, UNREPORTED = ARGV[last_arg + 3], ARGV[last_arg + 4]

-- Report no more failures than one call may check leases: an operation can have 100,000 tasks.
local function fail(task, members, reason)
  if members and members ~= '' and expired < LIMIT then
    append_event('task.failed', members .. ',"error":' .. cjson.encode(reason))
  end
  ended('failed', task, '0', '0')
  expired = expired + 1
end

-- End the tasks that no worker has reported in time, or move the end of the silence.
local function end_silence()
  local deadline = math.max(n.heard, n.due) + PART_PATIENCE
  if n.running > 0 or n.lost > 0 or deadline > now_ms then
    call('ZADD', LEASES, math.max(deadline, now_ms + PART_PATIENCE), SILENCE)
    return false
  end
  local tasks = call('HGETALL', TASKS)
  for i = 1, #tasks, 2 do
    local is = string.sub(tasks[i + 1], 1, 1)
    if is == 'p' then
      fail(tasks[i], string.sub(tasks[i + 1], 3), UNREPORTED)
    elseif is == 'e' then
      published(tasks[i], '0', '0', 0, '')
    end
  end
  return true
end

if not had_ended then
  for _, task in ipairs(call('ZRANGEBYSCORE', LEASES, '-inf', now_ms, 'LIMIT', 0, LIMIT)) do
    local is, members = read_task(task)
    if task == '' then
      missing = true
    elseif task == SILENCE then
      silent = true
    elseif is == 'R' then
      call('HSET', TASKS, task, 'l ' .. members)
      call('ZADD', LEASES, now_ms + PATIENCE, task)
      n.running, n.lost = n.running - 1, n.lost + 1
      expired = expired + 1
    elseif is == 'r' or is == 'l' then
      fail(task, members, LOST)
    else
      -- Redis evicted the key of the tasks. A lease without a task would be checked forever.
      call('ZREM', LEASES, task)
    end
  end
end
if silent then
  missing = end_silence() or missing
end
save(missing)
local reply = answer()
reply[#reply + 1] = expired
reply[#reply + 1] = former ~= 'lost' and n.state == 'lost' and 1 or 0
return reply
