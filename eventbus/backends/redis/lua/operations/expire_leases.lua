-- expire_leases: check an operation's leases. If a lease has expired, the task's worker is gone.
-- The task is lost if Celery delivers its message again, and has failed if not. A lost task that
-- did not restart in time has failed, and so has an operation whose awaited tasks did not come.
--
-- KEYS, ARGV: as in _operation.lua, then: patience with lost tasks (ms), tasks per call, text of
-- the error
--
-- Returns _operation.lua's answer, then the number of tasks that were lost or failed, and 1 if the
-- operation became lost. The state is empty if the operation is unknown.
if is_new then
  call('DEL', LEASES)
  return { epoch, text(offset), 0, 0, '', 0, 0, 0, '0', 0, 0 }
end
local former, expired, missing = n.state, 0, false
local PATIENCE, LIMIT, ERROR = tonumber(ARGV[last_arg + 1]), ARGV[last_arg + 2], ARGV[last_arg + 3]
if not had_ended then
  for _, task in ipairs(call('ZRANGEBYSCORE', LEASES, '-inf', now_ms, 'LIMIT', 0, LIMIT)) do
    local is, members = read_task(task)
    if task == '' then
      missing = true
    elseif is == 'R' then
      call('HSET', TASKS, task, 'l ' .. members)
      call('ZADD', LEASES, now_ms + PATIENCE, task)
      n.running, n.lost = n.running - 1, n.lost + 1
      expired = expired + 1
    elseif is == 'r' or is == 'l' then
      if members ~= '' then
        append_event('task.failed', members .. ',"error":' .. cjson.encode(ERROR))
      end
      ended('failed', task, '0', '0')
      expired = expired + 1
    else
      -- Redis evicted the key of the tasks. A lease without a task would be checked forever.
      call('ZREM', LEASES, task)
    end
  end
end
save(missing)
local reply = answer()
reply[#reply + 1] = expired
reply[#reply + 1] = former ~= 'lost' and n.state == 'lost' and 1 or 0
return reply
