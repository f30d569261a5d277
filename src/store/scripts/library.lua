-- Functions that most scripts share, inserted between frame.lua and the scripts. Only `read_stats`
-- (if it prunes), `extend_ttl`, `remember_id`, `audit` and `change_fix` write.

-- The widths of the buckets of rolled-up events, in seconds: of the last day, and older ones.
local FINE_SECONDS, COARSE_SECONDS = 120, 3600

-- Returns ARGV 1-4, the earliest times inside the windows of 30 days, 7 days, 24 hours and 1 hour:
-- first as texts, which include the microseconds, and then as numbers.
local function window_starts()
  local starts = { ARGV[1], ARGV[2], ARGV[3], ARGV[4] }
  for window = 1, 4 do
    starts[window + 4] = tonumber(starts[window])
  end
  return starts
end

-- The time for which an event is kept, the age up to which the bucket of a rolled-up event is fine,
-- and the maximum difference between clocks.
local MONTH_SECONDS, DAY_SECONDS, MINUTE_SECONDS = 30 * 86400, 86400, 60

local server_now

-- Returns a time (as text and as number), or the server's own time minus `seconds` if that is
-- earlier: a caller whose clock is ahead must not remove data that others still count. Must be
-- called only if something would be removed, so that most calls do not read the time.
local function not_ahead(time, seconds)
  if not server_now then
    local now = call('TIME')
    server_now = tonumber(now[1]) + tonumber(now[2]) / 1e6
  end
  local number, latest = tonumber(time), server_now - seconds
  if number <= latest then
    return time, number
  end
  return string.format('%.6f', latest), latest
end

-- Returns true if data with the time `at` must stay. `kept_from` is the earliest time that the
-- caller keeps, and `seconds` is the time for which data are kept.
local function must_stay(at, kept_from, seconds)
  if at >= tonumber(kept_from) then
    return true
  end
  local _, earliest = not_ahead(kept_from, seconds)
  return at >= earliest
end

-- Reads the key `folded`: the oldest rolled-up event, the newest (later events are in the
-- timeline), their number, and the time before which buckets are coarse. Returns nil if the text
-- has another form.
local function read_rollup(text)
  local first, edge, total, coarse_before = string.match(text, '^(%S+) (%S+) (%S+) (%S+)$')
  local first_at, edge_at = tonumber(first), tonumber(edge)
  total, coarse_before = tonumber(total), tonumber(coarse_before)
  if not (first_at and edge_at and total and coarse_before) then
    return nil
  end
  return { first = first, edge = edge, total = total, coarse_before = coarse_before,
    first_at = first_at, edge_at = edge_at }
end

-- Returns the list that `work` returns. If it fails because of its anomaly's data, returns a list
-- of "error" and the message.
local function protected_list(work, ...)
  local result = protected(work, ...)
  return type(result) == 'table' and result or { result }
end

-- Returns the reply of a command that reads, or nil if the key is of a foreign type.
local function read_if_readable(...)
  local ok, reply = pcall(call, ...)
  if ok then
    return reply
  end
  if data_error(code_first(reply)) then
    return nil
  end
  error(reply, 0)
end

-- Returns the number of rolled-up events before a time, without those in the bucket that it cuts.
local function rolled_up_before(k, time)
  local before = call('ZREVRANGEBYSCORE', KEYS[k + FOLDED_COUNTS], '(' .. time, '-inf', 'LIMIT',
    '0', '1')
  return tonumber(before[1]) or 0
end

-- Adds the rolled-up events to stats.
local function add_rollup(k, starts, stats)
  local rollup = stats.rollup
  for window = 1, 4 do
    local start_at = starts[window + 4]
    if start_at <= rollup.first_at then
      stats[window] = stats[window] + rollup.total
    elseif start_at <= rollup.edge_at then
      stats[window] = stats[window] + rollup.total - rolled_up_before(k, starts[window])
      stats.is_approximate = true
    end
  end
  local oldest = rollup.first
  if starts[5] > rollup.first_at then
    -- Its bucket may be coarse, and cut by the start.
    local bucket = call('ZRANGEBYSCORE', KEYS[k + FOLDED_COUNTS], starts[1], '+inf', 'WITHSCORES',
      'LIMIT', '0', '1')
    local ends_at = tonumber(bucket[2]) or rollup.edge_at
    oldest = string.format('%.6f', math.max(ends_at - ends_at % COARSE_SECONDS, starts[5]))
  end
  -- Late events are still in the timeline.
  if not stats.oldest or tonumber(oldest) < tonumber(stats.oldest) then
    stats.oldest = oldest
  end
end

-- Maximum number of elements whose texts one command reads: Lua's stack holds some thousands.
local ELEMENTS_AT_ONCE = 500

-- Reads the keys that hold texts, three per element, with one command for many elements: the
-- overhead of a command is larger than its work.
local function read_texts(count, keys_each)
  local texts = {}
  for first = 1, count, ELEMENTS_AT_ONCE do
    local names, length = {}, 0
    for i = first, math.min(first + ELEMENTS_AT_ONCE - 1, count) do
      local k = (i - 1) * keys_each + 1
      names[length + 1], names[length + 2] = KEYS[k + REPAIR_COUNT], KEYS[k + PERMANENT_FIX]
      names[length + 3] = KEYS[k + FOLDED]
      length = length + 3
    end
    for j, text in ipairs(call('MGET', unpack(names))) do
      texts[(first - 1) * 3 + j] = text
    end
  end
  return texts
end

-- Number of expired events that the call may still remove, which takes a third of a microsecond
-- each: a timeline of an older writer may have a million.
local prunable_events = 5000

-- Removes the events of a timeline before `earliest`, up to the number that the call may still
-- remove. Returns true if there are more.
local function prune(timeline, earliest)
  local expired = call('ZCOUNT', timeline, '-inf', '(' .. earliest)
  local count = math.min(expired, prunable_events)
  if count > 0 then
    call('ZREMRANGEBYRANK', timeline, '0', count - 1)
    prunable_events = prunable_events - count
  end
  return expired > count
end

-- Reads the stats of an anomaly: its events by window as members 1 to 4, and the rest by name,
-- where `length` is the length of the timeline, and `has_more` says that there are events older
-- than `oldest_id`, or rolled-up ones. If `kept_from` is set, removes expired events (see
-- `must_stay`), but only if there are any: after any write, even one that removes nothing, Redis
-- lets a script exceed maxmemory. `has_expired` says that some expired events remain. `texts` are
-- the texts of all elements, and this one is the `i`th.
local function read_stats(k, starts, kept_from, texts, i)
  local timeline = KEYS[k]
  local first = call('ZRANGE', timeline, '0', '0', 'WITHSCORES')
  local oldest_id, oldest = first[1], first[2]
  local oldest_at = tonumber(oldest)
  local has_older, has_expired = oldest and oldest_at < starts[5], false
  if has_older then
    if kept_from and not must_stay(oldest_at, kept_from, MONTH_SECONDS) then
      local earliest, earliest_at = not_ahead(kept_from, MONTH_SECONDS)
      has_expired = prune(timeline, earliest)
      has_older = has_expired or earliest_at < starts[5]
    end
    first = call('ZRANGEBYSCORE', timeline, starts[1], '+inf', 'WITHSCORES', 'LIMIT', '0', '1')
    oldest_id, oldest = first[1], first[2]
    oldest_at = tonumber(oldest)
  end
  local length, month, week, day, hour = 0, 0, 0, 0, 0
  if oldest or has_older then
    length = call('ZCARD', timeline)
  end
  if oldest then
    month = has_older and call('ZCOUNT', timeline, starts[1], '+inf') or length
    -- A window that begins before the oldest event contains all events, and need not be counted.
    week = oldest_at >= starts[6] and month or call('ZCOUNT', timeline, starts[2], '+inf')
    day = oldest_at >= starts[7] and week or call('ZCOUNT', timeline, starts[3], '+inf')
    hour = oldest_at >= starts[8] and day or call('ZCOUNT', timeline, starts[4], '+inf')
  end
  local stats = { month, week, day, hour, length = length, oldest = oldest, newest = false,
    oldest_id = oldest_id, has_more = has_older or texts[i * 3], has_expired = has_expired,
    repairs = texts[i * 3 - 2], mark = texts[i * 3 - 1], rollup = false, is_approximate = false }
  local rollup = texts[i * 3] and read_rollup(texts[i * 3])
  if rollup and rollup.edge_at >= starts[5] then
    stats.rollup = rollup
    add_rollup(k, starts, stats)
  elseif rollup and kept_from and must_stay(rollup.edge_at, kept_from, MONTH_SECONDS) then
    stats.rollup = rollup
  end
  return stats
end

local windows_by_text = {}

-- Reads the additional windows of a rule, "start:upper:N" each: its start (Unix seconds), the
-- number of the shortest of the four windows that is longer (1 for 30 days to 4 for 1 hour), and
-- the count below which the window decides nothing. Many elements have the same text.
local function rule_windows(text)
  local windows = windows_by_text[text]
  if not windows then
    windows = {}
    for start, upper, least in string.gmatch(text, '(%S+):(%d):(%d+)') do
      windows[#windows + 1] = { start = start, start_at = tonumber(start),
        upper = tonumber(upper), least = tonumber(least) }
    end
    windows_by_text[text] = windows
  end
  return windows
end

-- Returns true if the events of a rule's window must be counted: their number does not follow from
-- the four windows, and may be large enough to decide.
local function must_count(stats, window)
  local upper = stats[window.upper]
  return upper >= window.least and upper > (stats[window.upper + 1] or 0)
end

-- Returns the number of events in a rule's window that must be counted. They are counted once per
-- anomaly.
local function count_window(k, stats, window)
  stats.extra, stats.cut = stats.extra or {}, stats.cut or {}
  local count, rollup = stats.extra[window.start], stats.rollup
  if not count then
    count = call('ZCOUNT', KEYS[k], window.start, '+inf')
    if rollup and window.start_at <= rollup.first_at then
      count = count + rollup.total
    elseif rollup and window.start_at <= rollup.edge_at then
      count = count + rollup.total - rolled_up_before(k, window.start)
      stats.cut[window.start] = true
    end
    stats.extra[window.start] = count
  end
  return count
end

-- Returns the time of the newest event.
local function newest_event(k, stats)
  local newest = newest_time(KEYS[k])
  if stats.rollup and not (newest and tonumber(newest) > stats.rollup.edge_at) then
    return stats.rollup.edge
  end
  return newest
end

-- Returns stats as one text, which costs Redis and its reader less than a list of values: `word`,
-- the events of 30 days and, if they differ or the rule has `windows`, ",7 days,24 hours,1 hour";
-- then those of the rule's windows, "-" for one that need not be counted, "~" before one that cuts
-- a bucket of rolled-up events; the oldest and the newest event. If there is more, "approximate" or
-- "exact" follows, and the number of repair attempts; if there is a mark, "marked", its remaining
-- milliseconds, the newest event before the recorded one (`previous`, which record.lua sets), and
-- the mark's time. `-` stands for a missing value. The milliseconds are for marks without a
-- readable time: an older writer's metadata expire before its mark does. A foreign writer's
-- unreadable value counts as missing, because a counted event must be answered.
local function encode_stats(k, word, stats, windows)
  local text = word .. ' ' .. stats[1]
  if stats[4] ~= stats[1] or windows[1] then
    text = text .. ',' .. stats[2] .. ',' .. stats[3] .. ',' .. stats[4]
    for _, window in ipairs(windows) do
      local count = must_count(stats, window) and count_window(k, stats, window)
      text = text .. (count and stats.cut[window.start] and ',~' or ',') .. (count or '-')
    end
  end
  text = text .. ' ' .. (stats.oldest or '-') .. ' ' .. (stats.newest or '-')
  if not (stats.repairs or stats.mark or stats.is_approximate) then
    return text
  end
  text = text .. (stats.is_approximate and ' approximate ' or ' exact ')
    .. (stats.repairs and string.match(stats.repairs, '^%d+$') or '-')
  if stats.mark ~= '1' then
    return text
  end
  return text .. ' marked ' .. call('PTTL', KEYS[k + PERMANENT_FIX]) .. ' '
    .. (stats.previous or '-') .. ' '
    .. (read_if_readable('HGET', KEYS[k + METADATA], 'permanent_fix_time') or '-')
end

-- Returns true if anything is kept about an anomaly.
local function is_known(k)
  return call('EXISTS', KEYS[k + METADATA], KEYS[k + TIMELINE], KEYS[k + PERMANENT_FIX],
    KEYS[k + REPAIR_COUNT], KEYS[k + REPAIR_HISTORY]) > 0
end

-- Raises the TTL of a key to at least `seconds`. (EXPIRE's own option GT is not in Redis 6.2.)
local function extend_ttl(name, seconds)
  if call('TTL', name) < tonumber(seconds) then
    call('EXPIRE', name, seconds)
  end
end

-- Returns true if the id of an operation is remembered. Ids are kept from `kept_from` on, for
-- `kept_seconds`.
local function is_remembered(k, id, kept_from, kept_seconds)
  local remembered_at = tonumber(call('ZSCORE', KEYS[k + OPERATION_IDS], id) or nil)
  return remembered_at and must_stay(remembered_at, kept_from, kept_seconds)
end

-- Fails if an id could not be remembered afterwards, without changing anything: no id is a line
-- feed.
local function check_memory_of_ids(k, now)
  call('ZADD', KEYS[k + OPERATION_IDS], 'XX', now, '\n')
end

-- Maximum number of ids of operations that a call drops for each id that it adds: an older writer
-- may have left any number.
local IDS_AT_ONCE = 100

-- Remembers the id of an operation as one of the last `max_ids`, and forgets expired ids. An
-- operation that fails half-way must not count as done: the id is remembered last, or removed
-- again.
local function remember_id(k, id, now, kept_from, kept_seconds, max_ids)
  local ids = KEYS[k + OPERATION_IDS]
  call('ZADD', ids, now, id)
  call('EXPIRE', ids, kept_seconds)
  local surplus = call('ZCARD', ids) - max_ids
  local oldest = call('ZRANGE', ids, '0', '0', 'WITHSCORES')[2]
  if not must_stay(tonumber(oldest), kept_from, kept_seconds) then
    local earliest = not_ahead(kept_from, kept_seconds)
    surplus = math.max(surplus, call('ZCOUNT', ids, '-inf', '(' .. earliest))
  end
  if surplus > 0 then
    call('ZREMRANGEBYRANK', ids, '0', math.min(surplus, IDS_AT_ONCE) - 1)
  end
end

-- Adds an entry to the audit, which keeps the newest `max_entries` for `seconds`. Commands that can
-- be repeated come first: one of them may fail, and the operation is sent again.
local function audit(k, entry, max_entries, seconds)
  local entries = KEYS[k + AUDIT]
  call('EXPIRE', entries, seconds)
  call('LTRIM', entries, '0', max_entries - 2)
  call('LPUSH', entries, entry)
  call('EXPIRE', entries, seconds)
end

-- Returns the time of the last mark or removal if it is later than `at`: a write through one
-- instance of the service that arrives late must not undo a later write through another.
local function later_change(k, at)
  local changed_at = call('HGET', KEYS[k + METADATA], 'permanent_fix_changed')
  if not changed_at or tonumber(at) >= tonumber(changed_at) then
    return nil
  end
  -- A change that lies ahead was made with a wrong clock, and says nothing about the order.
  local _, latest = not_ahead(changed_at, -MINUTE_SECONDS)
  return latest == tonumber(changed_at) and changed_at or nil
end

-- Changes the permanent fix of the one anomaly of a call with `apply`, which gets the name of the
-- metadata and the time by which changes are ordered, and returns true if it had an effect. Returns
-- `effective`, or `ineffective` if `apply` had no effect, the id is known, or the change has waited
-- and a later one was made; or "unknown". If a change that has not waited meets a later one,
-- nothing is written, and "later" and the time of that one (Unix seconds) are returned: its caller,
-- if it still waits, makes the change after all.
--
-- ARGV  1  seconds to keep an id
--       2  the time from which ids are kept (Unix seconds)
--       3  now (Unix seconds)
--       4  event id
--       5  the change's time (Unix seconds)
--       6  its entry in the audit (JSON)
--       7  maximum number of ids of operations
--       8  maximum number of entries in an audit
--       9  seconds to keep an audit
--       10 the time of the later change after which this one is to be made (Unix seconds), or ''
local function change_fix(apply, effective, ineffective)
  local kept_seconds, kept_from, now, id, at, entry, max_ids, audit_entries, audit_seconds, known =
    unpack(ARGV, 1, 10)
  if not is_known(1) then
    return 'unknown'
  end
  if is_remembered(1, id, kept_from, kept_seconds) then
    return ineffective
  end
  local has_effect, later = false, later_change(1, at)
  local is_after = later and known ~= '' and tonumber(later) <= tonumber(known)
  if later and not is_after and tonumber(at) >= tonumber(now) then
    return 'later ' .. later
  end
  if not later or is_after then
    -- Called before anything is written, so that keys of a foreign type fail without a change.
    call('LLEN', KEYS[1 + AUDIT])
    check_memory_of_ids(1, now)
    has_effect = apply(KEYS[1 + METADATA], later or at)
    if has_effect then
      audit(1, entry, audit_entries, audit_seconds)
    end
  end
  remember_id(1, id, now, kept_from, kept_seconds, max_ids)
  return has_effect and effective or ineffective
end
