-- publish: many events of one channel, in order: drop known ids, number, keep, publish.
--
-- KEYS, ARGV[1..7]  as in channel.lua; with letters.lua before it as there
-- then for each event: id, keep (log, latest, nothing, ack), key (ack: lane and expiry), header, tail
--
-- Returns {epoch, end of the channel, receivers, states pruned, offset of each event; negative: its id was known, the first one's offset}
local offsets = {}
local owing = false
for i = OPTIONS + 1, #ARGV, 5 do
  local id, keep = ARGV[i], ARGV[i + 1]
  if keep == 'ack' then
    local place = append(id, 'log', '', ARGV[i + 3], ARGV[i + 4])
    if place > 0 then
      local lane, expires = string.match(ARGV[i + 2], '^(%d) (%d+)$')
      owe(id, epoch, tonumber(lane), tonumber(expires), 0, records[#records])
      owing = true
    end
    offsets[#offsets + 1] = place
  else
    offsets[#offsets + 1] = append(id, keep, ARGV[i + 2], ARGV[i + 3], ARGV[i + 4])
  end
end
local in_epoch, receivers, pruned = close()
if owing then
  pending_live_on(2 * math.max(lasts - tonumber(clock[1]), 1))
end
return { in_epoch, text(offset), receivers, pruned, unpack(offsets) }
