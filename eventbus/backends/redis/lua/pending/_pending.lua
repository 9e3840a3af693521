-- Pending: what changes a user's pending events and dead letters. It comes after _entries.lua, before the
-- verb.
--
-- KEYS, ARGV: as in _entries.lua
--
-- Constants from Python: LANES (initial -> number), TOMBSTONES_SPARED (so many tombstones of a list need no
-- removal), SORTED_SETS (of format 1: what follows the name of pending, by lane), SLACK.
local dead_lettered = 0

-- Replace a list. The caller sets its time to live.
local function write_list(list, ids)
  call('DEL', LISTS[list])
  for from = 1, #ids, 1000 do -- unpack has a limit
    call('RPUSH', LISTS[list], unpack(ids, from, math.min(from + 999, #ids)))
  end
end

-- Remove all tombstones of a list that has too many. The removals before have paid for the cost.
local function compact(list)
  if tombstones[list] <= TOMBSTONES_SPARED or tombstones[list] * 2 <= call('LLEN', LISTS[list]) then
    return
  end
  local ids, life = {}, call('TTL', LISTS[list])
  for _, id in ipairs(call('LRANGE', LISTS[list], 0, -1)) do
    if call('HDEL', TOMBSTONES, list .. ' ' .. id) == 0 then
      ids[#ids + 1] = id
    end
  end
  write_list(list, ids)
  call('EXPIRE', LISTS[list], life)
  tombstones_left(list, tombstones[list])
end

-- Append an id. Returns the number of ids with an entry.
local function add_id(list, id)
  -- An id that comes again may have a tombstone, in any lane. The new entry must not revive that one.
  for other = list == DEAD_LIST and DEAD_LIST or 0, list == DEAD_LIST and DEAD_LIST or 2 do
    if tombstones[other] > 0 and call('HDEL', TOMBSTONES, other .. ' ' .. id) == 1 then
      call('LREM', LISTS[other], 1, id)
      tombstones_left(other, 1)
    end
  end
  compact(list)
  return call('RPUSH', LISTS[list], id) - tombstones[list]
end

-- Returns whether the entry is new.
local function save_pending(id, e)
  return call('HSET', PENDING, id, table.concat({ e.epoch, e.lane, integer(e.attempts), integer(e.first),
    integer(e.next), integer(e.expires), integer(e.requeues) }, ' ') .. '\n' .. e.record) == 1
end

-- Add a dead letter. If there are too many, the oldest are removed.
local function add_dead(id, reason, attempts, first, requeues, content)
  local entry = table.concat({ reason, integer(attempts), integer(first), integer(now_ms), integer(requeues) }, ' ')
  if call('HSET', DEAD, id, entry .. '\n' .. content) == 0 then
    call('LREM', LISTS[DEAD_LIST], 1, id) -- it died again, so it is the youngest
  end
  local over = add_id(DEAD_LIST, id) - DEAD_LIMIT
  while over > 0 do
    trim_left(DEAD_LIST)
    call('HDEL', DEAD, call('LPOP', LISTS[DEAD_LIST]))
    over = over - 1
  end
  -- With slack: the sweeper removes each dead letter when its time is over.
  call('EXPIRE', DEAD, math.ceil(DEAD_LIFE * SLACK))
  call('EXPIRE', LISTS[DEAD_LIST], math.ceil(DEAD_LIFE * SLACK))
  dead_lettered = dead_lettered + 1
end

local function dead_letter(id, e, reason)
  remove_pending(id, e.lane)
  add_dead(id, reason, e.attempts, e.first, e.requeues, e.record)
end

-- Whether each pending entry has its id in a list. It is not so if Redis evicted a key, or if a
-- program with format 1 wrote: that one keeps ids in the sorted sets pending:{lane} and dead:at.
local function pending_agrees()
  return call('HLEN', PENDING) == call('LLEN', LISTS[0]) + call('LLEN', LISTS[1]) + call('LLEN', LISTS[2])
      - tombstones[0] - tombstones[1] - tombstones[2]
    and call('EXISTS', PENDING .. SORTED_SETS[0], PENDING .. SORTED_SETS[1], PENDING .. SORTED_SETS[2]) == 0
end

-- The same for dead letters.
local function dead_agrees()
  return call('HLEN', DEAD) == call('LLEN', LISTS[DEAD_LIST]) - tombstones[DEAD_LIST]
    and call('EXISTS', DEAD .. ':at') == 0
end

-- Make the lists from the entries, and remove the sorted sets of format 1. Each entry says where it belongs.
local function rebuild_lists()
  local epoch_now = call('HGET', KEYS[1], 'epoch')
  local by_lane, by_death, age = { [0] = {}, {}, {} }, {}, {}
  local function older(a, b)
    local one, other = age[a], age[b]
    for i = 1, 3 do
      if one[i] ~= other[i] then
        return one[i] < other[i]
      end
    end
    return a < b
  end
  for _, id in ipairs(call('HKEYS', PENDING)) do
    local e = read_pending(id)
    if by_lane[e.lane] and e.requeues then
      table.insert(by_lane[e.lane], id)
      -- Offsets of other epochs have no order. Those events are older than the ones of this epoch.
      local place = tonumber(string.match(e.record, '^%d+')) or 0
      age[id] = e.epoch == epoch_now and { 1, place, 0 } or { 0, e.first, place }
    else
      -- Another program wrote it.
      add_dead(id, 'undecodable', 0, now_ms, 0, call('HGET', PENDING, id))
      call('HDEL', PENDING, id)
    end
  end
  local life = call('TTL', PENDING)
  for lane = 0, 2 do
    table.sort(by_lane[lane], older)
    write_list(lane, by_lane[lane])
    call('EXPIRE', LISTS[lane], life)
  end
  local places = {}
  for place, id in ipairs(call('LRANGE', LISTS[DEAD_LIST], 0, -1)) do
    places[id] = place
  end
  for _, id in ipairs(call('HKEYS', DEAD)) do
    table.insert(by_death, id)
    local died = tonumber(split_entry(call('HGET', DEAD, id))[4]) or 0
    age[id] = { 0, died, places[id] or 0 }
  end
  table.sort(by_death, older)
  write_list(DEAD_LIST, by_death)
  call('EXPIRE', LISTS[DEAD_LIST], call('TTL', DEAD))
  for lane = 0, 2 do
    call('DEL', PENDING .. SORTED_SETS[lane])
  end
  call('DEL', TOMBSTONES, DEAD .. ':at')
  tombstones = { [0] = 0, 0, 0, 0 }
end

-- Add an id where a gateway of format 1 looks for it. A later reader moves it into the list.
local function add_to_sorted_set(id, lane, place)
  local set = PENDING .. SORTED_SETS[lane]
  call('ZADD', set, place, id)
  for _ = PENDING_LIMIT, call('ZCARD', set) - 1 do
    local oldest = call('ZPOPMIN', set)[1]
    local e = read_pending(oldest)
    if e then
      call('HDEL', PENDING, oldest)
      add_dead(oldest, 'full', e.attempts, e.first, e.requeues, e.record)
    end
  end
end

-- Add an event that was just appended to the channel to the pending events.
local function add_pending(id, in_epoch, lane, expires, requeues, record)
  local is_new = save_pending(id, { epoch = in_epoch, lane = lane, attempts = 0, first = now_ms,
    next = now_ms + ACK_TIMEOUT, expires = expires, requeues = requeues, record = record })
  if not is_new then
    -- The window has forgotten the id. The event is pending once, at its new place.
    for other = 0, 2 do
      call('LREM', LISTS[other], 1, id)
    end
  end
  if FORMAT == 1 then
    add_to_sorted_set(id, lane, string.match(record, '^%d+'))
    return
  end
  local over = add_id(lane, id) - PENDING_LIMIT
  if over > 0 and not pending_agrees() then
    rebuild_lists()
    over = call('LLEN', LISTS[lane]) - PENDING_LIMIT
  end
  for _ = 1, over do
    trim_left(lane)
    local oldest = call('LINDEX', LISTS[lane], 0)
    local e = oldest and read_pending(oldest)
    if e then
      dead_letter(oldest, e, 'full')
    else
      call('LPOP', LISTS[lane])
    end
  end
end

-- Keep the channel until an entry ends: an event class may have a longer ttl than its channel. Call
-- it before close().
local function keep_channel_until(ends)
  lifetime = math.max(lifetime, math.ceil((ends - now_ms) / 1000))
end

-- Let the lists live as long as the channel's state. Entries expire earlier; the sweeper moves them
-- to the dead letters.
local function expire_pending(seconds)
  call('EXPIRE', PENDING, seconds)
  for lane = 0, 2 do
    call('EXPIRE', LISTS[lane], seconds)
    if FORMAT == 1 then
      call('EXPIRE', PENDING .. SORTED_SETS[lane], seconds)
    end
  end
end

-- Split a record into its header without the offset and its JSON after the first member.
local function split_record(record)
  local stop = string.find(record, '\n', 1, true)
  local header = string.match(string.sub(record, 1, stop - 1), '^%d+ (.*)$')
  local tail = string.match(string.sub(record, stop + 1), '^{"offset":%d+,(.*)$')
  return header, tail
end
