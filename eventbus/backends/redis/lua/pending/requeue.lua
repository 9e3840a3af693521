-- requeue: an operator sends dead letters again. An id that is not among the dead letters is
-- skipped, so a repeated call has no effect.
--
-- KEYS, ARGV: as in _entries.lua (after _channel.lua), then: id, …
--
-- Returns {epoch, end of the channel, new offset of each id (0: not a dead letter, -1: no valid
-- event), …}
local KEEPS = { log = true, ack = true, latest = true, nothing = true }
local offsets = {}

-- Whether the content is an event of this library. The check comes first: an error later in the
-- loop would remove the dead letter without publishing it, and leave a log that rejects later
-- events.
local function is_event(record)
  local lane, keep = string.match(record, '^%d+ (%a) (%a+) %d+ %d+ %S+ %S+ [^\n]+\n{"offset":%d+,')
  return lane and LANES[lane] and KEEPS[keep]
end

-- The header with new times: the event gets its original lifetime again, starting now.
local function renewed(header)
  local lane, keep, expires, emitted, rest = string.match(header, '^(%a) (%a+) (%d+) (%d+) (.*)$')
  local life = tonumber(expires) > 0 and tonumber(expires) - math.floor(tonumber(emitted) / 1000) or 0
  local ends = life > 0 and now_ms + life or 0
  local new = table.concat({ lane, keep, integer(ends), integer(now_ms * 1000), rest }, ' ')
  return new, lane, keep, string.match(rest, '^%S+ %S+ (.*)$'), ends > 0 and ends or now_ms + CHANNEL_LIFE * 1000
end

if not dead_agrees() then
  rebuild_lists()
end
for i = last_arg + 1, #ARGV do
  local id = ARGV[i]
  local entry = call('HGET', DEAD, id)
  if not entry then
    offsets[#offsets + 1] = '0'
  else
    local fields, record = split_entry(entry)
    if not is_event(record) then
      offsets[#offsets + 1] = '-1'
    else
      local header, tail = split_record(record)
      local new, lane, keep, key, expires = renewed(header)
      call('HDEL', DEAD, id)
      remove_id(DEAD_LIST, id)
      call('ZREM', IDS, id)
      append(id, keep == 'ack' and 'log' or keep, key, new, tail)
      if keep == 'ack' then
        keep_channel_until(expires)
        add_pending(id, epoch, LANES[lane], expires, tonumber(fields[5]) + 1, records[#records])
      end
      offsets[#offsets + 1] = text(offset)
    end
  end
end
-- ZREM may have removed the last id and with it the key. The key is then new and has no expiry yet.
fresh_keys = true
close()
expire_pending(2 * math.max(lives_until - tonumber(clock[1]), 1))
return { epoch, text(offset), unpack(offsets) }
