-- fetch: read a user's pending events in the order of delivery: 16 high, 4 normal, 1 low, and so
-- on.
--
-- KEYS, ARGV: as in _entries.lua (after _channel.lua), then: bytes, after which the answer ends
--
-- Events of an earlier epoch are appended to this one, since a client needs offsets of the current
-- epoch. They move to the right end of their list.
-- Returns {epoch, end of the channel, 1 if there are more, record, …}
--
-- Constants from Python: WEIGHTS (events of each lane in a round).
local LIMIT = tonumber(ARGV[last_arg + 1])
local STEP = 64 -- ids that one command reads
local waiting = call('HLEN', PENDING)
if waiting > 0 and not pending_agrees() then
  rebuild_lists()
end
local lanes = {}
for lane = 0, 2 do
  trim_left(lane)
  compact(lane)
  lanes[lane] = { ids = {}, at = 0, read = 0, ended = waiting == 0 }
end
-- The lists change only after they were read.
local answer, expired, republished = {}, {}, {}

local function next_id(lane)
  local place = lanes[lane]
  if place.at == #place.ids and not place.ended then
    place.ids, place.at = call('LRANGE', LISTS[lane], place.read, place.read + STEP - 1), 0
    place.read, place.ended = place.read + #place.ids, #place.ids < STEP
    place.entries = #place.ids > 0 and call('HMGET', PENDING, unpack(place.ids))
  end
  place.at = place.at + 1
  local id = place.ids[place.at]
  return id, id and place.entries[place.at]
end

-- Return the record of an entry that needs no change; nil: its epoch is an earlier one, or it has expired.
local function record_of(entry)
  local in_epoch, expires, record = string.match(entry, '^(%S+) %d+ %d+ %d+ %d+ (%d+) %d+\n(.*)$')
  return in_epoch == epoch and tonumber(expires) > now_ms and record or nil
end

local function republish(id, e)
  local header, tail = split_record(e.record)
  call('ZREM', IDS, id)
  append(id, 'log', '', header, tail)
  e.epoch, e.record = epoch, records[#records]
  save_pending(id, e)
  keep_channel_until(e.expires)
  republished[#republished + 1] = { id, e.lane }
end

local size, found = 0, true
while found and size < LIMIT do
  found = false
  for lane = 0, 2 do
    for _ = 1, WEIGHTS[lane + 1] do
      local id, entry
      if size < LIMIT then
        id, entry = next_id(lane)
      end
      if not id then
        break
      end
      found = true
      local record = entry and record_of(entry)
      if entry and not record then
        local e = read_pending(id)
        if e.expires <= now_ms then
          expired[#expired + 1] = { id, e }
        else
          republish(id, e)
          record = e.record
        end
      end
      if record then
        answer[#answer + 1] = record
        size = size + #record
      end
    end
  end
end
for _, one in ipairs(expired) do
  dead_letter(one[1], one[2], 'expired')
end
for _, one in ipairs(republished) do
  remove_id(one[2], one[1])
  add_id(one[2], one[1])
end
-- ZREM may have removed the last id and with it the key. The key is then new and has no expiry yet.
fresh_keys = fresh_keys or #republished > 0
close()
if #republished > 0 then
  expire_pending(2 * math.max(lives_until - tonumber(clock[1]), 1))
end
-- Without a state and without a republished event the channel has no epoch yet.
local more = size >= LIMIT and waiting > #answer + #expired
return { (state[1] or #republished > 0) and epoch or '', text(offset), more and 1 or 0, unpack(answer) }
