-- Records occurrences, one after the other, and returns the stats of each one's anomaly after it.
--
-- KEYS     for each occurrence: timeline, repair_count, permanent_fix, metadata, folded,
--          folded_counts, folded_ids
-- ARGV     1-4  the starts of the windows of 30 days, 7 days, 24 hours, 1 hour (Unix seconds)
--          5    seconds to keep an anomaly
--          6    number of an anomaly's newest events that are kept exactly
--          7    number of events beyond those before they are rolled up
--          8    number of ids of rolled-up events to remember
--          9    1 if the occurrences may have been recorded before
--          then for each occurrence: 1 if its keys' TTL is due for renewal, event id, its time
--          (Unix seconds), its time (ISO 8601), the posted object (JSON)
-- Returns  for each occurrence a text: "counted", "duplicate", "too_old" or "unrecognisable", and
--          the stats after it (`encode_stats` in library.lua); or "error" and a message
--
-- A script and not MULTI: whether an id is new decides about the writes that follow, and all
-- figures of an answer are of the same moment.
--
-- If several occurrences of a batch are of one anomaly, it is read once, and its stats are kept up
-- to date in Lua, because a command costs more than most of what it does.

local KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH = 7, 9, 5

local starts = window_starts()
local kept_seconds = ARGV[5]
local exact_events, rollup_batch = tonumber(ARGV[6]), tonumber(ARGV[7])
local recent_ids, may_be_copies = tonumber(ARGV[8]), ARGV[9] == '1'
-- Up to 128 short members, Redis 7.0 parses all scores again with each ZADD, ten times as slow as
-- in the other encoding, which a set keeps for good once it has held a longer member. No id has a
-- line feed.
local PACKED_EVENTS, LONG_MEMBER = 32, string.rep('\n', 65)

local texts
local stats_by_timeline = {}

-- Rolls up the surplus of an anomaly's events, and writes the roll-up if it has changed.
local function bound_timeline(stats)
  local surplus = stats.length - exact_events
  local has_surplus = stats.is_pruned and surplus > rollup_batch
  if has_surplus then
    roll_up_oldest(stats.k, stats, surplus, starts, recent_ids)
  end
  if stats.rollup and stats.rollup.changed_ids then
    write_rollup(stats.k, stats.rollup, starts, kept_seconds)
  end
  if has_surplus then
    call('ZREMRANGEBYRANK', KEYS[stats.k], '0', surplus - 1)
  end
end

-- Adds an event to the timeline. Returns false if its id is there already.
local function insert(k, a, stats, id, at)
  local timeline, metadata = KEYS[k], KEYS[k + METADATA]
  local is_due = not stats.is_renewed and (ARGV[a + 1] == '1' or stats.length == 0)
  -- Read before anything is written, so that metadata of a foreign type fail without a change.
  local has_signature = not is_due or call('HEXISTS', metadata, 'signature') == 1
  if call('ZADD', timeline, 'NX', at, id) == 0 then
    return false
  end
  if is_due then
    call('EXPIRE', timeline, kept_seconds)
    if not has_signature then
      call('HSET', metadata, 'signature', ARGV[a + 5])
      call('HSETNX', metadata, 'first_seen', ARGV[a + 4])
    end
    extend_ttl(metadata, kept_seconds)
    stats.is_renewed = true
  end
  stats.length = stats.length + 1
  if stats.length == PACKED_EVENTS then
    -- First without an effect: a user who may not call it must not leave the member behind.
    call('ZREM', timeline, LONG_MEMBER)
    call('ZADD', timeline, at, LONG_MEMBER)
    call('ZREM', timeline, LONG_MEMBER)
  end
  return true
end

-- Adds the `i`th event to the timeline or to the roll-up, and returns its outcome.
local function add(i, k, a, stats, id, at, at_number)
  local rollup = stats.rollup
  if rollup then
    if has_recent_id(k, rollup, id, starts) then
      return 'duplicate'
    end
    if at_number <= rollup.edge_at then
      if call('ZSCORE', KEYS[k], id) then
        return 'duplicate'
      end
      if may_be_copies and at_number <= dropped_until(k, rollup) then
        return 'unrecognisable'
      end
      roll_up_late(rollup, i, at, at_number)
      add_recent_id(k, rollup, id, at_number, recent_ids)
      return 'counted'
    end
  end
  if not insert(k, a, stats, id, at) then
    return 'duplicate'
  end
  if not stats.newest and call('ZREVRANK', KEYS[k], id) == 0 then
    stats.newest, stats.newest_at = at, at_number
  end
  return 'counted'
end

local function record(i)
  local k, a = (i - 1) * KEYS_EACH + 1, FIXED_ARGUMENTS + (i - 1) * ARGUMENTS_EACH
  local id, at, at_number = ARGV[a + 2], ARGV[a + 3], tonumber(ARGV[a + 3])
  local is_inside = at_number >= starts[5]
  local stats = stats_by_timeline[KEYS[k]]
  if not stats or is_inside and not stats.is_pruned then
    stats = read_stats(k, starts, is_inside, texts, i)
    stats.k, stats.is_pruned = k, is_inside
    stats_by_timeline[KEYS[k]] = stats
  end
  local outcome = 'too_old'
  if is_inside then
    outcome = add(i, k, a, stats, id, at, at_number)
    if outcome == 'counted' then
      stats[1] = stats[1] + 1
      for window = 2, 4 do
        if at_number >= starts[window + 4] then
          stats[window] = stats[window] + 1
        end
      end
      if not stats.oldest or at_number < tonumber(stats.oldest) then
        stats.oldest = at
      end
    end
  end
  if not stats.newest then
    stats.newest = stats[1] > 0 and newest_event(k, stats)
    stats.newest_at = tonumber(stats.newest)
  elseif outcome == 'counted' and at_number > stats.newest_at then
    stats.newest, stats.newest_at = at, at_number
  end
  return encode_stats(k, outcome, stats)
end

return run(function()
  local count = elements(KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH)
  texts = read_texts(count, KEYS_EACH)
  local results = {}
  for i = 1, count do
    results[i] = protected(record, i)
  end
  for _, stats in pairs(stats_by_timeline) do
    local fault = protected(bound_timeline, stats)
    -- Other events are in the timeline, and do not fail.
    for _, event in ipairs(fault and stats.rollup and stats.rollup.late or {}) do
      if event.element then
        results[event.element] = fault
      end
    end
  end
  return results
end)
