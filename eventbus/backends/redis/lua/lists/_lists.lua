-- Lists: Redis lists of event ids, the oldest at the left. It comes after _channel.lua or
-- _standalone.lua, before _entries.lua. No verb searches a list for an id that a client
-- acknowledges: such an id stays in the list as a tombstone until it reaches the left end.
--
-- KEYS[6..8]  list  event ids of the high, normal and low lane: lists 0, 1 and 2
-- KEYS[10]    list  ids of the dead letters: list 3
-- KEYS[12] tombstones  hash  "list id" -> empty, for each tombstone; ":list" -> number of its tombstones
local LISTS = { [0] = KEYS[6], KEYS[7], KEYS[8], KEYS[10] }
local TOMBSTONES, DEAD_LIST = KEYS[12], 3
local tombstones = { [0] = 0, 0, 0, 0 }
if call('EXISTS', TOMBSTONES) == 1 then
  for i, number in ipairs(call('HMGET', TOMBSTONES, ':0', ':1', ':2', ':3')) do
    tombstones[i - 1] = tonumber(number or 0)
  end
end

-- Note that tombstones have left a list.
local function tombstones_left(list, number)
  tombstones[list] = tombstones[list] - number
  if tombstones[list] > 0 then
    call('HSET', TOMBSTONES, ':' .. list, tombstones[list])
  else
    call('HDEL', TOMBSTONES, ':' .. list)
  end
end

-- Remove the tombstones at the left end. Each one is removed once.
local function trim_left(list)
  local trimmed = 0
  while trimmed < tombstones[list] do
    local id = call('LINDEX', LISTS[list], 0)
    if not id or call('HDEL', TOMBSTONES, list .. ' ' .. id) == 0 then
      break
    end
    call('LPOP', LISTS[list])
    trimmed = trimmed + 1
  end
  if trimmed > 0 then
    tombstones_left(list, trimmed)
  end
end

-- Remove an id whose entry is gone. Only at the left end it leaves the list immediately.
local function remove_id(list, id)
  local leftmost = call('LINDEX', LISTS[list], 0)
  if leftmost == id then
    call('LPOP', LISTS[list])
    trim_left(list)
  elseif leftmost then
    tombstones[list] = tombstones[list] + 1
    call('HSET', TOMBSTONES, list .. ' ' .. id, '', ':' .. list, tombstones[list])
    if tombstones[list] == 1 then
      call('EXPIRE', TOMBSTONES, math.max(call('TTL', LISTS[list]), call('TTL', TOMBSTONES)))
    end
  end
end
