-- Functions that the scripts beside this file share. It is put in front of each of them, since a
-- script can load no other. Only `keep` and `note` write.
--
-- `names` are an anomaly's Redis keys by kind.
-- `starts` are the earliest times inside the windows of 30 days, 7 days, 24 hours and 1 hour, as
-- texts: a number of Lua's could not carry the microseconds through `tostring`.

-- The kinds of keys, in the order in which KEYS lists those of an anomaly.
local KINDS =
  { 'timeline', 'repair_count', 'permanent_fix', 'metadata', 'repair_history', 'operation_ids' }

-- Fails unless the call has `fixed` arguments and, for each element, `keys_each` keys and
-- `arguments_each` arguments. Answers the number of elements.
local function elements(keys_each, fixed, arguments_each)
  local count = #KEYS / keys_each
  if count ~= math.floor(count) or #ARGV ~= fixed + count * arguments_each then
    error('wrong number of KEYS or ARGV')
  end
  return count
end

-- The names of the keys of the element `i`, of which each has `keys_each`.
local function names_of(i, keys_each)
  local names = {}
  for kind = 1, keys_each do
    names[KINDS[kind]] = KEYS[(i - 1) * keys_each + kind]
  end
  return names
end

-- Answers the event times: a count for each window, the oldest and the newest inside 30 days.
-- A window that begins before the oldest event holds them all, and need not be counted.
local function count_windows(timeline, starts)
  local month = redis.call('ZCOUNT', timeline, starts[1], '+inf')
  if month == 0 then
    return { 0, 0, 0, 0, '', '' }
  end
  local oldest =
    redis.call('ZRANGEBYSCORE', timeline, starts[1], '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
  local newest = redis.call('ZRANGE', timeline, -1, -1, 'WITHSCORES')[2]
  local counts = { month }
  for window = 2, 4 do
    if tonumber(oldest) >= tonumber(starts[window]) then
      counts[window] = counts[window - 1]
    else
      counts[window] = redis.call('ZCOUNT', timeline, starts[window], '+inf')
    end
  end
  return { counts[1], counts[2], counts[3], counts[4], oldest, newest }
end

-- Answers an anomaly's tally: {30d, 7d, 24h, 1h, oldest, newest, repair attempts, mark,
-- mark's time, mark's remaining milliseconds}; '' stands for what there is not. The last is for
-- marks without a readable time: an older writer's metadata expire before its mark does.
local function tally(names, starts)
  local result = count_windows(names.timeline, starts)
  local values = redis.call('MGET', names.repair_count, names.permanent_fix)
  local marked_at, remaining = '', ''
  if values[2] == '1' then
    marked_at = redis.call('HGET', names.metadata, 'permanent_fix_time') or ''
    remaining = redis.call('PTTL', names.permanent_fix)
  end
  result[7] = tonumber(values[1]) and values[1] or ''
  result[8] = values[2] or ''
  result[9] = marked_at
  result[10] = remaining
  return result
end

-- Whether anything is kept about an anomaly.
local function is_known(names)
  return redis.call('EXISTS', names.metadata, names.timeline, names.permanent_fix,
    names.repair_count, names.repair_history) > 0
end

-- Makes a key live for at least `seconds` more. (EXPIRE's own GT is not in Redis 6.2.)
local function keep(name, seconds)
  if redis.call('TTL', name) < tonumber(seconds) then
    redis.call('EXPIRE', name, seconds)
  end
end

-- Whether an id has been noted within the last `kept_seconds`.
local function is_noted(names, id, now, kept_seconds)
  local noted_at = redis.call('ZSCORE', names.operation_ids, id)
  return noted_at and tonumber(noted_at) > tonumber(now) - tonumber(kept_seconds)
end

-- Notes an id. To be called last: an operation that fails half-way must not count as done.
local function note(names, id, now, kept_seconds)
  redis.call('ZADD', names.operation_ids, now, id)
  redis.call('EXPIRE', names.operation_ids, kept_seconds)
  redis.call('ZREMRANGEBYSCORE', names.operation_ids, '-inf',
    string.format('%.6f', tonumber(now) - tonumber(kept_seconds)))
end

-- Whether a mark or removal of the time `at` comes late, and after one that is later than it: what has
-- waited at one instance of the service must not undo what was done through another meanwhile.
local function is_outdated(names, at, now)
  local changed_at = redis.call('HGET', names.metadata, 'permanent_fix_changed')
  return changed_at and tonumber(at) < tonumber(now) and tonumber(at) < tonumber(changed_at)
end

-- Answers what `work` answers, or {'error', message} when it fails, so that one anomaly with a
-- key of a foreign type fails alone.
local function guarded(work, ...)
  local ok, result = pcall(work, ...)
  if ok then
    return result
  end
  return { 'error', type(result) == 'table' and result.err or tostring(result) }
end
