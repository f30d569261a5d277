-- Functions that the scripts beside this file share. It is put in front of each of them, since a
-- script can load no other. Only `read_stats` (where it forgets), `extend_ttl`, `remember_id` and `audit` write.
--
-- `k` is the place of an anomaly's first key in KEYS. Its keys stand there in the order below, and a
-- script takes the first few of them. (Places, since to make a table of names for each anomaly takes
-- longer than many a command.) Numbers go to Redis as texts: one of Lua's is printed anew each time.

local TIMELINE, REPAIR_COUNT, PERMANENT_FIX, METADATA = 0, 1, 2, 3
local FOLDED, FOLDED_COUNTS, FOLDED_IDS = 4, 5, 6
local REPAIR_HISTORY, OPERATION_IDS, AUDIT = 7, 8, 9

-- How wide the buckets of folded events are: of the last day, and older ones.
local FINE_SECONDS, COARSE_SECONDS = 120, 3600

local KEYS, ARGV = KEYS, ARGV
local call, tonumber = redis.call, tonumber

-- Fails unless the call has `fixed` arguments and, for each element, `keys_each` keys and
-- `arguments_each` arguments. Answers the number of elements.
local function elements(keys_each, fixed, arguments_each)
  local count = #KEYS / keys_each
  if count ~= math.floor(count) or #ARGV ~= fixed + count * arguments_each then
    error('wrong number of KEYS or ARGV')
  end
  return count
end

-- ARGV 1-4, the earliest times inside the windows of 30 days, 7 days, 24 hours and 1 hour: as texts,
-- which carry the microseconds, and then the same as numbers.
local function window_starts()
  local starts = { ARGV[1], ARGV[2], ARGV[3], ARGV[4] }
  for window = 1, 4 do
    starts[window + 4] = tonumber(starts[window])
  end
  return starts
end

-- What the key `folded` tells: the oldest folded event, the newest (what is later is in the timeline), how
-- many there are, and before which time their buckets are of an hour. None where all have left.
local function read_folded(text, starts)
  local first, edge, total, tidied = string.match(text, '^(%S+) (%S+) (%S+) (%S+)$')
  if not first or tonumber(edge) < starts[5] then
    return nil
  end
  return { first = first, edge = edge, total = tonumber(total), tidied = tonumber(tidied),
    first_at = tonumber(first), edge_at = tonumber(edge) }
end

-- How many folded events lie before a time, but for those in the bucket that it cuts.
local function folded_before(k, time)
  local before = call('ZREVRANGEBYSCORE', KEYS[k + FOLDED_COUNTS], '(' .. time, '-inf', 'LIMIT', '0',
    '1')
  return tonumber(before[1]) or 0
end

-- Adds the folded events to a tally.
local function add_folded(k, starts, stats)
  local folded = stats.folded
  for window = 1, 4 do
    local start_at = starts[window + 4]
    if start_at <= folded.first_at then
      stats[window] = stats[window] + folded.total
    elseif start_at <= folded.edge_at then
      stats[window] = stats[window] + folded.total - folded_before(k, starts[window])
      stats.is_approximate = true
    end
  end
  stats.oldest = folded.first
  if starts[5] > folded.first_at then
    -- Its bucket may be one of an hour, and cut.
    local bucket = call('ZRANGEBYSCORE', KEYS[k + FOLDED_COUNTS], starts[1], '+inf', 'WITHSCORES',
      'LIMIT', '0', '1')
    local ends_at = tonumber(bucket[2]) or folded.edge_at
    stats.oldest = string.format('%.6f', math.max(ends_at - ends_at % COARSE_SECONDS, starts[5]))
  end
end

-- What the keys hold that are texts, of all elements at once, for a command costs more than what it does;
-- but of so many at the most, since Lua's stack takes some thousands.
local ELEMENTS_AT_ONCE = 500

local function read_texts(count, keys_each)
  local texts = {}
  for first = 1, count, ELEMENTS_AT_ONCE do
    local names, place = {}, 0
    for i = first, math.min(first + ELEMENTS_AT_ONCE - 1, count) do
      local k = (i - 1) * keys_each + 1
      names[place + 1], names[place + 2] = KEYS[k + REPAIR_COUNT], KEYS[k + PERMANENT_FIX]
      names[place + 3] = KEYS[k + FOLDED]
      place = place + 3
    end
    for j, text in ipairs(call('MGET', unpack(names))) do
      texts[(first - 1) * 3 + j] = text
    end
  end
  return texts
end

-- Reads how often an anomaly has happened, as numbers 1 to 4 by window, and what is told beside it; forgets
-- what has left where it is to. `texts` are those of all elements, of which this is the `i`th. `length` is
-- that of the timeline. Looks before it forgets: after any
-- write, though it removes nothing, Redis lets a script exceed maxmemory.
local function read_stats(k, starts, forgets, texts, i)
  local timeline = KEYS[k]
  local oldest = call('ZRANGE', timeline, '0', '0', 'WITHSCORES')[2]
  local oldest_at = tonumber(oldest)
  local has_expired = oldest and oldest_at < starts[5]
  if has_expired then
    if forgets then
      call('ZREMRANGEBYSCORE', timeline, '-inf', '(' .. starts[1])
      has_expired = false
    end
    oldest = call('ZRANGEBYSCORE', timeline, starts[1], '+inf', 'WITHSCORES', 'LIMIT', '0', '1')[2]
    oldest_at = tonumber(oldest)
  end
  local length, month, week, day, hour = 0, 0, 0, 0, 0
  if oldest then
    length = call('ZCARD', timeline)
    month = has_expired and call('ZCOUNT', timeline, starts[1], '+inf') or length
    -- A window that begins before the oldest event holds them all, and need not be counted.
    week = oldest_at >= starts[6] and month or call('ZCOUNT', timeline, starts[2], '+inf')
    day = oldest_at >= starts[7] and week or call('ZCOUNT', timeline, starts[3], '+inf')
    hour = oldest_at >= starts[8] and day or call('ZCOUNT', timeline, starts[4], '+inf')
  end
  local stats = { month, week, day, hour, length = length, oldest = oldest, newest = false,
    repairs = texts[i * 3 - 2], mark = texts[i * 3 - 1], folded = false, is_approximate = false }
  local folded = texts[i * 3] and read_folded(texts[i * 3], starts)
  if folded then
    stats.folded = folded
    add_folded(k, starts, stats)
  end
  return stats
end

-- The newest event's time.
local function newest_event(k, stats)
  return call('ZRANGE', KEYS[k], '-1', '-1', 'WITHSCORES')[2] or stats.folded and stats.folded.edge
end

-- Answers a tally as one text, which takes Redis and its reader less than a list of values: `word`, then
-- the events of 30 days and, where they differ, ",7 days,24 hours,1 hour", the oldest and the newest.
-- Where there is more to tell follow "approximate" or "exact", the number of repair attempts,
-- "marked", the mark's remaining milliseconds and its time. `-` stands for what there is not. The
-- milliseconds are for marks without a readable time: an older writer's metadata expire before its
-- mark does.
local function encode_stats(k, word, stats)
  local text = word .. ' ' .. stats[1]
  if stats[4] ~= stats[1] then
    text = text .. ',' .. stats[2] .. ',' .. stats[3] .. ',' .. stats[4]
  end
  text = text .. ' ' .. (stats.oldest or '-') .. ' ' .. (stats.newest or '-')
  if not (stats.repairs or stats.mark or stats.is_approximate) then
    return text
  end
  text = text .. (stats.is_approximate and ' approximate ' or ' exact ')
    .. (tonumber(stats.repairs) and stats.repairs or '-')
  if stats.mark ~= '1' then
    return text
  end
  return text .. ' marked ' .. call('PTTL', KEYS[k + PERMANENT_FIX]) .. ' '
    .. (call('HGET', KEYS[k + METADATA], 'permanent_fix_time') or '-')
end

-- Whether anything is kept about an anomaly.
local function is_known(k)
  return call('EXISTS', KEYS[k + METADATA], KEYS[k + TIMELINE], KEYS[k + PERMANENT_FIX],
    KEYS[k + REPAIR_COUNT], KEYS[k + REPAIR_HISTORY]) > 0
end

-- Makes a key live for at least `seconds` more. (EXPIRE's own GT is not in Redis 6.2.)
local function extend_ttl(name, seconds)
  if call('TTL', name) < tonumber(seconds) then
    call('EXPIRE', name, seconds)
  end
end

-- Whether an id has been noted within the last `kept_seconds`.
local function is_noted(k, id, now, kept_seconds)
  local noted_at = call('ZSCORE', KEYS[k + OPERATION_IDS], id)
  return noted_at and tonumber(noted_at) > tonumber(now) - tonumber(kept_seconds)
end

-- Notes an id. To be called last: an operation that fails half-way must not count as done.
local function remember_id(k, id, now, kept_seconds)
  local ids = KEYS[k + OPERATION_IDS]
  call('ZADD', ids, now, id)
  call('EXPIRE', ids, kept_seconds)
  call('ZREMRANGEBYSCORE', ids, '-inf',
    string.format('%.6f', tonumber(now) - tonumber(kept_seconds)))
end

-- Keeps an entry of the audit, of which there are the newest 100, for as long as a mark may hold.
local function audit(k, entry)
  local entries = KEYS[k + AUDIT]
  call('LPUSH', entries, entry)
  call('LTRIM', entries, '0', '99')
  call('EXPIRE', entries, '7776000')
end

-- Whether a mark or removal of the time `at` comes late, and after one that is later than it: what has
-- waited at one instance of the service must not undo what was done through another meanwhile.
local function is_outdated(k, at, now)
  local changed_at = call('HGET', KEYS[k + METADATA], 'permanent_fix_changed')
  return changed_at and tonumber(at) < tonumber(now) and tonumber(at) < tonumber(changed_at)
end

-- Answers what `work` answers, or "error" and its message when it fails, so that one anomaly with a
-- key of a foreign type fails alone.
local function protected(work, ...)
  local ok, result = pcall(work, ...)
  if ok then
    return result
  end
  return 'error ' .. (type(result) == 'table' and result.err or tostring(result))
end
