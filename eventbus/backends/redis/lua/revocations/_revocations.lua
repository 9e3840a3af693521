-- Revocations: what operators and applications have ended or refused. It comes before the verb.
--
-- KEYS[1] entries  hash  "kind subject" -> entry: a line "before at until", a line with the name of
--                        who asked, a line with the reason
-- KEYS[2] changes  zset  "kind subject" -> number of its last change
-- KEYS[3] expiry   zset  "kind subject" -> when it is forgotten (ms)
local ENTRIES, CHANGES, EXPIRY = KEYS[1], KEYS[2], KEYS[3]
local call = redis.call
local clock = call('TIME')
local now_s, now_us = tonumber(clock[1]), tonumber(clock[2])
local now_ms = now_s * 1000 + math.floor(now_us / 1000)
