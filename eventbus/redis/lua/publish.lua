-- publish: many events of one channel, in order: drop known ids, number, keep, publish.
--
-- KEYS, ARGV[1..7]  as in channel.lua
-- then for each event: id, keep (log, latest, nothing), key, header, tail
--
-- Returns {epoch, end of the channel, receivers, states pruned, offset of each event; negative: its id was known, the first one's offset}
local offsets = {}
for i = OPTIONS + 1, #ARGV, 5 do
  offsets[#offsets + 1] = append(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4])
end
local in_epoch, receivers, pruned = close()
return { in_epoch, text(offset), receivers, pruned, unpack(offsets) }
