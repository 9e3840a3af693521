-- ack_upto: a client acknowledges all events up to a position.
--
-- KEYS, ARGV: as in _entries.lua (standalone), then: epoch, offset
--
-- Returns the ids that were pending
local EPOCH, UPTO = ARGV[last_arg + 1], tonumber(ARGV[last_arg + 2])
local LONGEST_READ = 64 -- ids that one command reads; the first one reads few, since few may be covered
local acked = {}

local function epoch_of(entry)
  return string.match(entry, '^%S+')
end

local function is_covered(entry)
  local in_epoch, offset = string.match(entry, '^(%S+) [^\n]*\n(%d+)')
  return in_epoch == EPOCH and tonumber(offset) <= UPTO
end

-- Acknowledge the covered events at the left end of a lane, and remove its tombstones there. Returns the entry of the
-- event that follows them.
local function acknowledge_left(lane)
  local number = 4
  while true do
    local ids = call('LRANGE', LISTS[lane], 0, number - 1)
    number = math.min(4 * number, LONGEST_READ)
    if #ids == 0 then
      return nil
    end
    local entries, covered, places, removed, following = call('HMGET', PENDING, unpack(ids)), {}, 0, 0, nil
    for i, id in ipairs(ids) do
      if entries[i] and is_covered(entries[i]) then
        covered[#covered + 1] = id
        acked[#acked + 1] = id
      elseif not entries[i] and call('HDEL', TOMBSTONES, lane .. ' ' .. id) == 1 then
        removed = removed + 1
      else
        following = entries[i]
        break
      end
      places = i
    end
    if #covered > 0 then
      call('HDEL', PENDING, unpack(covered))
    end
    if removed > 0 then
      tombstones_left(lane, removed)
    end
    if places > 0 then
      call('LPOP', LISTS[lane], places)
    end
    if places < #ids then
      return following or nil
    end
  end
end

-- Acknowledge a lane. It has ascending offsets, except for events of earlier epochs at its left.
local function acknowledge(lane)
  local following = acknowledge_left(lane)
  local newest = following and call('HGET', PENDING, call('LINDEX', LISTS[lane], -1))
  if not newest or epoch_of(following) == EPOCH or epoch_of(newest) ~= EPOCH then
    return -- the rest is newer, or of epochs whose offsets mean nothing here
  end
  -- Pass the events of an earlier epoch. The next fetch publishes them again, and so moves them to the right.
  for from = 0, call('LLEN', LISTS[lane]), 100 do
    for _, passed in ipairs(call('LRANGE', LISTS[lane], from, from + 99)) do
      local entry = call('HGET', PENDING, passed)
      if entry and is_covered(entry) then
        remove_pending(passed, lane)
        acked[#acked + 1] = passed
      elseif entry and epoch_of(entry) == EPOCH then
        return
      end
    end
  end
end

if not pending_agrees() then
  rebuild_lists()
end
for lane = 0, 2 do
  acknowledge(lane)
end
return note_acknowledged(acked)
