-- Adds events to timelines; inserted after rollup.lua and timeline.lua, before a script that
-- records. ARGV 1-11 are as in record.lua, and the arguments of each element begin as there; `a` is
-- the index of the argument before them. A script that takes alerts too defines the function
-- `hear`.
--
-- If several elements of a batch are of one anomaly, it is read once, and its stats are updated in
-- Lua, because a command costs more than most of its work.

local starts = window_starts()
local kept_seconds = ARGV[5]
local exact_events, rollup_batch = tonumber(ARGV[6]), tonumber(ARGV[7])
local recent_ids, may_be_copies, kept_from = tonumber(ARGV[8]), ARGV[9] == '1', ARGV[10]
-- Maximum number of events and buckets that a call rolls up beyond the number of its occurrences,
-- some 5 us each: so a timeline that is too long becomes shorter, and other users of Redis wait for
-- some milliseconds. Only the first anomaly's buckets, up to some 1,500, may exceed it: no anomaly
-- may wait for ever.
local MORE_WORK = 500

local texts
local asked_by_text, most_asked = {}, nil
local stats_by_timeline = {}
-- All further elements of these anomalies must be sent again too, so that they stay in order.
local wanted_timelines = {}

-- Returns the starts of the windows; those of 30 days and of 24 hours are moved so that nothing
-- expires or becomes coarse too early.
local function safe_starts()
  local limits = { unpack(starts) }
  limits[1], limits[5] = not_ahead(kept_from, MONTH_SECONDS)
  limits[3], limits[7] = not_ahead(starts[3], DAY_SECONDS)
  return limits
end

-- Rolls up the surplus of an anomaly if its buckets can be rewritten within `work`. Returns the
-- work that was done. `is_first` says that nothing else was rolled up.
local function bound_timeline(stats, work, is_first, limits)
  local oldest = call('ZRANGE', KEYS[stats.k], '0', '0', 'WITHSCORES')[2]
  local room = work - call('ZCOUNT', KEYS[stats.k + FOLDED_COUNTS], oldest, '+inf')
  if is_first then
    room = math.max(room, MORE_WORK)
  elseif room <= 0 then
    return 0
  end
  return roll_up_oldest(stats.k, stats, math.min(stats.surplus, room), limits, recent_ids,
    kept_seconds)
end

-- Rolls up the surplus of the anomalies' events as far as the call may, the largest first. The rest
-- is rolled up by later writes.
local function bound_timelines(count)
  local too_long = {}
  for _, stats in pairs(stats_by_timeline) do
    stats.surplus = stats.length - exact_events
    -- Expired events are removed first, and not rolled up.
    if stats.is_pruned and not stats.has_expired and stats.surplus > rollup_batch then
      table.insert(too_long, stats)
    end
  end
  table.sort(too_long, function(a, b) return a.surplus > b.surplus end)
  local work, is_first = count + MORE_WORK, true
  local limits = #too_long > 0 and safe_starts()
  for _, stats in ipairs(too_long) do
    if work > 0 then
      local done = tonumber(protected(bound_timeline, stats, work, is_first, limits))
      is_first = is_first and (done or 0) == 0
      -- If it fails, it is left as it is: its events are still in the timeline.
      work = work - (done or 1)
    end
  end
end

-- Adds an event to the timeline itself. Returns false if its id is already there.
local function insert_member(timeline, stats, id, at)
  if call('ZADD', timeline, 'NX', at, id) == 1 then
    stats.length = stats.length + 1
    return true
  end
  -- A copy that has expired but is not removed yet does not count.
  if stats.has_expired
    and not must_stay(tonumber(call('ZSCORE', timeline, id)), kept_from, MONTH_SECONDS) then
    call('ZADD', timeline, at, id)
    return true
  end
  return false
end

-- Adds an event to the timeline, and renews the TTLs of its keys if that is due. Returns false if
-- its id is already there.
local function insert(k, stats, id, at)
  local timeline, metadata = KEYS[k], KEYS[k + METADATA]
  local is_due = stats.renewed_by and not stats.is_renewed
  -- Read before anything is written, so that metadata of a foreign type fail without a change.
  local has_signature = not is_due or call('HEXISTS', metadata, 'signature') == 1
  if not insert_member(timeline, stats, id, at) then
    return false
  end
  if is_due then
    call('EXPIRE', timeline, kept_seconds)
    if not has_signature then
      call('HSET', metadata, 'signature', ARGV[stats.renewed_by + 4])
      call('HSETNX', metadata, 'first_seen', ARGV[stats.renewed_by + 3])
    end
    extend_ttl(metadata, kept_seconds)
    stats.is_renewed = true
  end
  unpack_timeline(timeline, stats.length, at)
  return true
end

-- Adds an event to the timeline, and returns its outcome.
local function add(k, stats, id, at, at_number)
  local rollup = stats.rollup
  if stats.length == 0 and not stats.renewed_by then
    return 'wanted'
  end
  if rollup then
    if has_recent_id(k, rollup, id, kept_from) then
      return 'duplicate'
    end
    if may_be_copies and at_number <= rollup.edge_at and at_number <= dropped_until(k, rollup) then
      return call('ZSCORE', KEYS[k], id) and 'duplicate' or 'unrecognisable'
    end
  end
  if not insert(k, stats, id, at) then
    return 'duplicate'
  end
  if not stats.newest and not rollup and at_number >= starts[5]
    and call('ZREVRANK', KEYS[k], id) == 0 then
    stats.newest, stats.newest_at = at, at_number
  end
  return 'counted'
end

-- Makes an anomaly known without an event, and returns the outcome of an event that is too old.
local function make_known(k, stats)
  local metadata = KEYS[k + METADATA]
  local has_signature = call('HEXISTS', metadata, 'signature') == 1
  if not stats.renewed_by then
    -- They were renewed within the last minute.
    return has_signature and 'too_old' or 'wanted'
  end
  if not has_signature then
    call('HSET', metadata, 'signature', ARGV[stats.renewed_by + 4])
    call('HSETNX', metadata, 'first_seen', ARGV[stats.renewed_by + 3])
  end
  extend_ttl(metadata, kept_seconds)
  return 'too_old'
end

-- Reads the request of a rule, which many elements share.
local function asked_for(text)
  local asked = asked_by_text[text]
  if not asked then
    local newest, steps, windows = string.match(text, '^(%d+);([^;]*);([^;]*)$')
    asked = { newest = tonumber(newest), steps = {}, windows = rule_windows(windows) }
    for window, count in string.gmatch(steps, '(%d+):(%d+)') do
      local last = asked.steps[#asked.steps]
      if not last or last.window ~= tonumber(window) then
        last = { window = tonumber(window), counts = {} }
        asked.steps[#asked.steps + 1] = last
      end
      last.counts[tonumber(count)] = true
    end
    asked_by_text[text] = asked
  end
  return asked
end

-- Returns the number of events in a rule's window. If they need not be counted, returns that of the
-- next shorter window: it has all of these events, or the number is too small to matter.
local function events_of(k, stats, window)
  if must_count(stats, window) then
    return count_window(k, stats, window)
  end
  return stats[window.upper + 1] or 0
end

-- Returns true if the counts after an occurrence may be those of a step to a level.
local function may_step(k, stats, asked)
  local steps = asked.steps
  for i = 1, #steps do
    local step = steps[i]
    local count = stats[step.window] or events_of(k, stats, asked.windows[step.window - 4])
    if step.counts[count] then
      return true
    end
  end
  return false
end

-- The widths of the script that records.
local keys_each, fixed_arguments, arguments_each

-- Records an element that is an alert, in a script that takes alerts, and returns its outcome.
local hear

-- Records the `i`th element, and returns its outcome and the stats after it.
local function record(i)
  local k, a = (i - 1) * keys_each + 1, fixed_arguments + (i - 1) * arguments_each
  local id, at, at_number = ARGV[a + 1], ARGV[a + 2], tonumber(ARGV[a + 2])
  local is_kept = at_number >= starts[5] or must_stay(at_number, kept_from, MONTH_SECONDS)
  if wanted_timelines[KEYS[k]] then
    return 'wanted'
  end
  local stats = stats_by_timeline[KEYS[k]]
  if not stats or is_kept and not stats.is_pruned then
    stats = read_stats(k, starts, is_kept and kept_from or nil, texts, i)
    stats.k, stats.is_pruned = k, is_kept
    stats_by_timeline[KEYS[k]] = stats
  end
  -- The object was sent with the anomaly's first event in the call, which may be a duplicate.
  stats.renewed_by = stats.renewed_by or ARGV[a + 4] ~= '' and a
  if stats.mark == '1' then
    -- Whether this occurrence is the first after the mark follows from the event before it.
    if not stats.newest and stats[1] > 0 then
      stats.newest = newest_event(k, stats)
      stats.newest_at = tonumber(stats.newest)
    end
    stats.previous = stats.newest
  end
  local outcome
  if hear and ARGV[a + 6] ~= '' then
    outcome = hear(k, a, stats, is_kept)
  else
    outcome = is_kept and add(k, stats, id, at, at_number) or make_known(k, stats)
  end
  if outcome == 'wanted' then
    wanted_timelines[KEYS[k]] = true
    return outcome
  elseif outcome == 'counted' and at_number >= starts[5] then
    stats[1] = stats[1] + 1
    for window = 2, 4 do
      if at_number >= starts[window + 4] then
        stats[window] = stats[window] + 1
      end
    end
    if stats.extra then
      for start, count in pairs(stats.extra) do
        if at_number >= tonumber(start) then
          stats.extra[start] = count + 1
        end
      end
    end
    if not stats.oldest or at_number < tonumber(stats.oldest) then
      stats.oldest, stats.oldest_id = at, id
    end
  end
  if not stats.newest then
    stats.newest = stats[1] > 0 and newest_event(k, stats)
    stats.newest_at = tonumber(stats.newest)
  elseif outcome == 'counted' and at_number > stats.newest_at then
    stats.newest, stats.newest_at = at, at_number
  end
  local own = ARGV[a + 5]
  local asked = own == '' and most_asked or asked_for(own)
  local text = encode_stats(k, outcome, stats, asked.windows)
  if outcome == 'counted' and stats.oldest_id and not stats.has_more then
    text = text .. '\n' .. stats.oldest_id
  end
  if outcome == 'counted' and asked.newest > 0 and may_step(k, stats, asked) then
    return { text, newest_times(KEYS[k], asked.newest) }
  end
  return text
end

-- Records `count` elements, and returns their results. Timelines that are too long become shorter.
local function record_all(count, ...)
  keys_each, fixed_arguments, arguments_each = ...
  texts = read_texts(count, keys_each)
  most_asked = asked_for(ARGV[11])
  local results = {}
  for i = 1, count do
    results[i] = protected(record, i)
  end
  bound_timelines(count)
  return results
end
