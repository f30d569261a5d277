-- Records occurrences, one after the other, and tallies each one's anomaly after it.
--
-- KEYS  for each occurrence: timeline, repair_count, permanent_fix, metadata, folded, folded_counts,
--       folded_ids
-- ARGV  1-4  the starts of the windows of 30 days, 7 days, 24 hours, 1 hour (Unix seconds)
--       5    seconds to keep an anomaly
--       6    how many of an anomaly's newest events are kept exactly
--       7    how many more there may be before they are folded
--       8    how many ids of folded events are remembered
--       then for each occurrence: 1 where its keys' lives are to be renewed, event id, its time (Unix seconds), its time (ISO 8601),
--       the posted object as JSON
-- Gives for each occurrence a text: "counted", "duplicate" or "too_old" and the tally after it (`encode_stats` in
--       library.lua); or "error" and a message
--
-- A script and not MULTI: whether an id is new decides about the writes that follow, and all figures of
-- an answer are of the same moment.
--
-- An anomaly that several occurrences of a batch are about is read once, and its tally kept up to date in
-- Lua: a command costs more than most of what it does.

local starts = window_starts()
local kept_seconds = ARGV[5]
local exact_events, fold_batch, remembered_ids = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
-- Up to 128 short members Redis (7.0) parses all scores anew with each ZADD, ten times as slow as the other
-- encoding, which a set takes for good once it holds a longer member.
local PACKED_EVENTS, LONG_MEMBER = 32, string.rep('-', 65)

local count = elements(7, 8, 5)
local texts = read_texts(count, 7)
local stats_by_timeline = {}

-- Folds what is too much of an anomaly, and writes down what has changed.
local function settle(stats)
  if stats.has_forgotten and stats.length > exact_events + fold_batch then
    fold_oldest(stats.k, stats, stats.length - exact_events, starts, remembered_ids)
  end
  if stats.folded and stats.folded.changed_ids then
    write_folded(stats.k, stats.folded, starts, kept_seconds)
  end
end

-- Puts an event into the timeline, and says whether its id is new there.
local function insert(k, a, stats, id, at)
  local timeline, metadata = KEYS[k], KEYS[k + METADATA]
  local is_due = not stats.is_renewed and (ARGV[a] == '1' or stats.length == 0)
  -- Read before anything is written, so that metadata of a foreign type change nothing.
  local has_signature = not is_due or call('HEXISTS', metadata, 'signature') == 1
  if call('ZADD', timeline, 'NX', at, id) == 0 then
    return false
  end
  if is_due then
    call('EXPIRE', timeline, kept_seconds)
    if not has_signature then
      call('HSET', metadata, 'signature', ARGV[a + 4])
      call('HSETNX', metadata, 'first_seen', ARGV[a + 3])
    end
    extend_ttl(metadata, kept_seconds)
    stats.is_renewed = true
  end
  stats.length = stats.length + 1
  if stats.length == PACKED_EVENTS then
    call('ZADD', timeline, at, LONG_MEMBER)
    call('ZREM', timeline, LONG_MEMBER)
  end
  return true
end

-- Puts an event in, wherever it belongs, and says whether it counts.
local function take(k, a, stats, id, at, at_number)
  local folded = stats.folded
  if folded then
    if remembers(k, folded, id, starts) then
      return false
    end
    if at_number <= folded.edge_at then
      if call('ZSCORE', KEYS[k], id) then
        return false
      end
      fold_late(folded, at, at_number)
      remember(k, folded, id, at_number, remembered_ids)
      return true
    end
  end
  if not insert(k, a, stats, id, at) then
    return false
  end
  if not stats.newest and call('ZREVRANK', KEYS[k], id) == 0 then
    stats.newest, stats.newest_at = at, at_number
  end
  return true
end

local function record(i)
  local k, a = i * 7 - 6, i * 5 + 4
  local id, at, at_number = ARGV[a + 1], ARGV[a + 2], tonumber(ARGV[a + 2])
  local is_inside = at_number >= starts[5]
  local stats = stats_by_timeline[KEYS[k]]
  if not stats or is_inside and not stats.has_forgotten then
    stats = read_stats(k, starts, is_inside, texts, i)
    stats.k, stats.has_forgotten = k, is_inside
    stats_by_timeline[KEYS[k]] = stats
  end
  local outcome = 'too_old'
  if is_inside then
    outcome = 'duplicate'
    if take(k, a, stats, id, at, at_number) then
      outcome = 'counted'
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

local results = {}
for i = 1, count do
  results[i] = protected(record, i)
end
for _, stats in pairs(stats_by_timeline) do
  -- Where it fails, since a key is of a foreign type, no event does: they are in the timeline.
  protected(settle, stats)
end
return results
