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
-- Gives for each occurrence a text: "counted", "duplicate" or "too_old" and the tally after it (`told` in
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
local tallies = {}

-- Folds what is too much of an anomaly, and writes down what has changed.
local function settle(tally)
  if tally.has_forgotten and tally.length > exact_events + fold_batch then
    fold_oldest(tally.k, tally, tally.length - exact_events, starts, remembered_ids)
  end
  if tally.folded and tally.folded.changed_ids then
    write_folded(tally.k, tally.folded, starts, kept_seconds)
  end
end

-- Puts an event into the timeline, and says whether its id is new there.
local function insert(k, a, tally, id, at)
  local timeline, metadata = KEYS[k], KEYS[k + METADATA]
  local is_due = not tally.is_renewed and (ARGV[a] == '1' or tally.length == 0)
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
    keep(metadata, kept_seconds)
    tally.is_renewed = true
  end
  tally.length = tally.length + 1
  if tally.length == PACKED_EVENTS then
    call('ZADD', timeline, at, LONG_MEMBER)
    call('ZREM', timeline, LONG_MEMBER)
  end
  return true
end

-- Puts an event in, wherever it belongs, and says whether it counts.
local function take(k, a, tally, id, at, at_number)
  local folded = tally.folded
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
  if not insert(k, a, tally, id, at) then
    return false
  end
  if not tally.newest and call('ZREVRANK', KEYS[k], id) == 0 then
    tally.newest, tally.newest_at = at, at_number
  end
  return true
end

local function record(i)
  local k, a = i * 7 - 6, i * 5 + 4
  local id, at, at_number = ARGV[a + 1], ARGV[a + 2], tonumber(ARGV[a + 2])
  local is_inside = at_number >= starts[5]
  local tally = tallies[KEYS[k]]
  if not tally or is_inside and not tally.has_forgotten then
    tally = read_tally(k, starts, is_inside, texts, i)
    tally.k, tally.has_forgotten = k, is_inside
    tallies[KEYS[k]] = tally
  end
  local outcome = 'too_old'
  if is_inside then
    outcome = 'duplicate'
    if take(k, a, tally, id, at, at_number) then
      outcome = 'counted'
      tally[1] = tally[1] + 1
      for window = 2, 4 do
        if at_number >= starts[window + 4] then
          tally[window] = tally[window] + 1
        end
      end
      if not tally.oldest or at_number < tonumber(tally.oldest) then
        tally.oldest = at
      end
    end
  end
  if not tally.newest then
    tally.newest = tally[1] > 0 and newest_event(k, tally)
    tally.newest_at = tonumber(tally.newest)
  elseif outcome == 'counted' and at_number > tally.newest_at then
    tally.newest, tally.newest_at = at, at_number
  end
  return told(k, outcome, tally)
end

local results = {}
for i = 1, count do
  results[i] = guarded(record, i)
end
for _, tally in pairs(tallies) do
  -- Where it fails, since a key is of a foreign type, no event does: they are in the timeline.
  guarded(settle, tally)
end
return results
