-- luacheck checks each file of a script alone. The names below are locals of the pieces that come before it.
std = "lua51"
max_line_length = 120
read_globals = { "redis", "cjson", "KEYS", "ARGV" }

local channel = {
  "STATE", "LOG", "SNAPSHOT", "IDS", "LIVE", "NEW_EPOCH", "call", "state", "epoch", "before", "records", "offset",
  "lives_until", "text", "append_new", "append", "close",
}
local timeline = { "STATE", "NEW_EPOCH", "TIMELINE", "call", "state" }
local channel_state = { "last_arg", "lifetime", "fresh_keys" }
local lists = { "LISTS", "DEAD_LIST", "TOMBSTONES", "tombstones_left", "trim_left", "remove_id" }
local entries = {
  "PENDING", "DEAD", "ACKED", "PENDING_LIMIT", "ATTEMPTS", "DEAD_LIMIT", "ACK_TIMEOUT", "DEAD_LIFE", "CHANNEL_LIFE",
  "clock", "now_ms", "integer", "split_entry", "read_pending", "remove_pending",
}
local pending = {
  "dead_lettered", "write_list", "compact", "add_id", "save_pending", "add_dead", "dead_letter", "add_pending",
  "pending_agrees", "dead_agrees", "rebuild_lists", "keep_channel_until", "expire_pending", "split_record",
}
local operation = {
  "COUNTS", "TASKS", "LEASES", "OPERATIONS", "is_new", "had_ended", "read_task", "published", "stop", "has_ended",
  "ended", "append_event", "update_state", "save", "answer", "now_ms", "operation_life", "set_due", "PART_PATIENCE",
}
local revocations = { "ENTRIES", "CHANGES", "EXPIRY", "call", "now_s", "now_us", "now_ms" }
-- From eventbus/backends/redis/scripts/constants.py and script.py.
local constants = {
  "LOG_LIMIT", "SNAPSHOT_LIMIT", "WINDOW", "PUBLISH", "FORMAT", "SLACK", "ACKED_LIMIT", "LONGEST_PAUSE", "LANES", "WEIGHTS",
  "POLICY_OF", "DONE", "ENDED", "SILENCE", "AWAIT_MS", "PARTS_MISSING", "TOMBSTONES_SPARED",
  "FIRST_LINE_END", "SORTED_SETS",
}

local function joined(...)
  local all = {}
  for _, names in ipairs({ ... }) do
    for _, name in ipairs(names) do
      all[#all + 1] = name
    end
  end
  return all
end

local standalone = { "call" }
-- A shared piece defines locals for the pieces after it (211: unused variable, 231: never accessed, 311, 331: unused value).
local shared = { "211", "221", "231", "311", "331" }

files["**/instances/*.lua"] = { read_globals = { "INSTANCES_LIMIT" } }
files["**/channel/_timeline.lua"] = { ignore = shared }
files["**/channel/_channel.lua"] = { read_globals = joined(constants, timeline), ignore = shared }
files["**/channel/read.lua"] = { read_globals = timeline }
files["**/channel/publish.lua"] = {
  read_globals = joined(constants, channel, entries, pending), globals = channel_state,
}
files["**/pending/_standalone.lua"] = { ignore = shared }
files["**/lists/_lists.lua"] = { read_globals = standalone, ignore = shared }
files["**/lists/_entries.lua"] = {
  read_globals = joined(constants, standalone, lists), globals = channel_state, ignore = shared,
}
files["**/lists/_acknowledge.lua"] = { read_globals = joined(constants, standalone, entries), ignore = shared }
files["**/pending/_pending.lua"] = {
  read_globals = joined(constants, standalone, lists, entries),
  globals = joined(channel_state, { "tombstones" }), ignore = shared,
}
files["**/operations/_operation.lua"] = {
  read_globals = joined(constants, channel), globals = channel_state, ignore = shared,
}
files["**/revocations/_revocations.lua"] = { ignore = shared }
for _, verb in ipairs({ "changes", "revoke" }) do
  files["**/revocations/" .. verb .. ".lua"] = { read_globals = revocations }
end
for _, verb in ipairs({ "ack", "ack_upto", "dead_letter", "list_dead", "purge", "redeliver", "sweep" }) do
  files["**/pending/" .. verb .. ".lua"] = {
    read_globals = joined(constants, standalone, lists, entries, pending, { "last_arg", "note_acknowledged", "tombstones" }),
  }
end
for _, verb in ipairs({ "fetch", "requeue" }) do
  files["**/pending/" .. verb .. ".lua"] = {
    read_globals = joined(constants, channel, lists, entries, pending), globals = channel_state,
  }
end
for _, verb in ipairs({ "cancel", "expire_leases", "record" }) do
  files["**/operations/" .. verb .. ".lua"] = {
    read_globals = joined(constants, channel, operation, channel_state), globals = { "n", "begun" },
  }
end
