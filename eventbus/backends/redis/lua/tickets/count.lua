-- count: count a ticket of a user.
--
-- KEYS[1] string  number of the user's tickets since the key began
-- ARGV: life of the key (s)
--
-- Returns the number. The life begins with the first ticket.
local call = redis.call
local number = call('INCR', KEYS[1])
if number == 1 then
  call('EXPIRE', KEYS[1], ARGV[1])
end
return number
