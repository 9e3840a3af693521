-- Standalone: comes before _lists.lua if a verb does not change the channel itself. It replaces
-- _channel.lua.
local call = redis.call
local last_arg = 0
