-- join: a process states whether its last write is still there, and learns the timeline of the data.
-- eventbus/protocol/timeline.py has the same rules and explains them.
--
-- KEYS[1] timeline   hash  server, generation, verdict, parent, since, newest, registered, intact, ancestors
-- KEYS[2] voters  hash  process -> 'time of its last renewal (ms) server', and ' idle' if it wrote nothing since
--
-- ARGV[1] process
-- ARGV[2] statement: intact, gone, unconfirmed or unsure
-- ARGV[3] timeline that the statement is about; empty: none
-- ARGV[4] patience (ms)
-- ARGV[5] milliseconds within which a process that writes renews its entry
-- ARGV[6] life of the keys (s)
-- ARGV[7] 1: the process is idle
--
-- Returns {verdict, timeline, ancestors, now (ms)}, or an error on a replica
local TIMELINE, VOTERS = KEYS[1], KEYS[2]
local PROCESS, STATEMENT, ABOUT, IDLE = ARGV[1], ARGV[2], ARGV[3], ARGV[7]
local PATIENCE, RENEWAL, LIFE = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local call = redis.call

local info = call('INFO', 'replication')
if not string.find(info, 'role:master', 1, true) then
  return redis.error_reply('READONLY the server is a replica')
end
local SERVER = string.sub(string.match(info, 'master_replid:(%x+)'), 1, 10)
local clock = call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)

local t = call('HMGET', TIMELINE, 'server', 'generation', 'verdict', 'parent', 'since', 'newest', 'registered',
  'intact', 'ancestors')
local server, generation, verdict, parent = t[1], tonumber(t[2] or '0'), t[3], t[4] or ''
local since, newest, registered = tonumber(t[5] or '0'), tonumber(t[6] or '0'), tonumber(t[7] or '0')
local intact, ancestors = t[8] or '0', t[9] or ''

-- Visit the entries of other lives of the data: time, idle
local function visit(each)
  local entries = call('HGETALL', VOTERS)
  for i = 1, #entries, 2 do
    local at, on, rest = string.match(entries[i + 1], '^(%d+) (%x+)(.*)$')
    if at and on ~= SERVER then
      each(tonumber(at), rest == ' idle', entries[i])
    end
  end
end

if not server then
  -- No data, or data of a version without timelines. '-' stands for channels without a timeline.
  local lost = STATEMENT == 'gone' or STATEMENT == 'unconfirmed'
  server, verdict, ancestors = SERVER, lost and 'forked' or 'clean', lost and '' or '-'
elseif server ~= SERVER then
  parent, server, generation, verdict = server .. '.' .. generation, SERVER, 0, 'pending'
  since, newest, registered, intact = now, 0, 0, '0'
  visit(function(at)
    newest, registered = math.max(newest, at), registered + 1
  end)
end

local function has_ancestor(name)
  return name ~= '' and string.find(' ' .. ancestors .. ' ', ' ' .. name .. ' ', 1, true) ~= nil
end

-- Of all ancestors only what no worker counts as published is lost.
local function keep(names)
  verdict, ancestors = 'kept', string.gsub(' ' .. names, ' ([^ ~])', ' ~%1')
  ancestors = string.match(ancestors, '^ *(.-) *$')
end

local on, number = string.match(ABOUT, '^(%x+)%.(%d+)$')
if on == SERVER then
  -- After FLUSHALL the generation is known to the processes only.
  generation = math.max(generation, tonumber(number))
elseif STATEMENT == 'gone' and verdict == 'pending' then
  verdict, ancestors = 'forked', ''
elseif STATEMENT == 'gone' and (has_ancestor(ABOUT) or has_ancestor('~' .. ABOUT) or has_ancestor('-')) then
  -- The others took this data for complete. All channels fork again.
  generation, verdict, ancestors = generation + 1, 'forked', ''
elseif STATEMENT == 'unconfirmed' and verdict == 'pending' then
  keep(parent .. ' ' .. ancestors)
elseif STATEMENT == 'unconfirmed' and (has_ancestor(ABOUT) or has_ancestor('-')) then
  keep(server .. '.' .. generation .. ' ' .. ancestors)
  generation = generation + 1
elseif STATEMENT == 'intact' and verdict == 'pending' and ABOUT == parent then
  intact = '1'
end

local function enter()
  if PROCESS ~= '' then
    call('HSET', VOTERS, PROCESS, string.format('%d %s%s', now, SERVER, IDLE == '1' and ' idle' or ''))
  end
end

if verdict == 'pending' then
  if STATEMENT == 'intact' and ABOUT == parent then
    enter()
  end
  local missing = 0
  visit(function(at, idle)
    if not idle and at + RENEWAL >= newest then
      missing = missing + 1
    end
  end)
  local complete = registered == 0 and string.find(call('INFO', 'persistence'), 'aof_enabled:1', 1, true)
  if missing == 0 and (intact == '1' or complete) then
    verdict, ancestors = 'clean', parent .. ' ' .. ancestors
    -- So many restarts are remembered: a channel that no process used since then forks.
    ancestors = string.match(ancestors, '^' .. string.rep('%S+ ', 16)) or ancestors
  elseif now - since >= PATIENCE then
    verdict, ancestors = 'forked', ''
  end
end
if verdict ~= 'pending' then
  enter()
  visit(function(at, _, process)
    if at < now - LIFE * 1000 then
      call('HDEL', VOTERS, process)
    end
  end)
end
call('HSET', TIMELINE, 'server', server, 'generation', generation, 'verdict', verdict, 'parent', parent,
  'since', string.format('%d', since), 'newest', string.format('%d', newest), 'registered', registered,
  'intact', intact, 'ancestors', ancestors)
call('EXPIRE', TIMELINE, 30 * LIFE)
call('EXPIRE', VOTERS, LIFE)
return { verdict, server .. '.' .. generation, ancestors, string.format('%d', now) }
