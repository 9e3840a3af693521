-- lapse: look at an operation's leases. A leaf whose worker is gone is lost if its message will come again, and has failed if not;
-- so has a lost one that did not come again in time, and an operation whose awaited leaves did not come.
--
-- KEYS, ARGV as in _operation.lua, then: patience with what is lost (ms), leaves looked at at once, text of the error
--
-- Returns as _operation.lua's answer, then how many leaves have been taken for lost or have failed, and 1 if the operation is lost by it; an empty state where it is not known
if is_new then
  redis.call('DEL', KEYS[7])
  return { epoch, text(offset), 0, 0, '', 0, 0, 0, '0', 0, 0 }
end
local former, taken, missing = n.state, 0, false
local patience, limit, gone = tonumber(ARGV[OPTIONS + 1]), ARGV[OPTIONS + 2], ARGV[OPTIONS + 3]
if not was_ended then
  for _, leaf in ipairs(redis.call('ZRANGEBYSCORE', KEYS[7], '-inf', now_ms, 'LIMIT', 0, limit)) do
    local is, about = letter(leaf)
    if leaf == '' then
      missing = true
    elseif is == 'R' then
      redis.call('HSET', KEYS[6], leaf, 'l ' .. about)
      redis.call('ZADD', KEYS[7], now_ms + patience, leaf)
      n.running, n.lost = n.running - 1, n.lost + 1
      taken = taken + 1
    elseif is == 'r' or is == 'l' then
      if about ~= '' then
        say('task.failed', 'h', 'log', about .. ',"error":' .. cjson.encode(gone))
      end
      ended('failed', leaf, '0', '0')
      taken = taken + 1
    else
      -- The leaves' key is gone, as by eviction: a lease of nothing would be looked at for ever.
      redis.call('ZREM', KEYS[7], leaf)
    end
  end
end
settle(missing)
local found = answer()
found[#found + 1] = taken
found[#found + 1] = former ~= 'lost' and n.state == 'lost' and 1 or 0
return found
