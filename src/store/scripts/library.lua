-- Functions that the scripts beside this file share. It is put in front of each of them, since a
-- script can load no other. Only `keep` and `is_first` write.
--
-- `names` are an anomaly's Redis keys as KEYS lists them, by kind:
--   timeline, repair_count, permanent_fix, metadata, repair_history, operation_ids
-- `starts` are the earliest times inside the windows of 30 days, 7 days, 24 hours and 1 hour, as
-- texts: a number of Lua's could not carry the microseconds through `tostring`.

-- Takes the next `count` entries of a list, from `cursor.at` on.
local function take(list, cursor, count)
  local first = cursor.at
  cursor.at = first + count
  return unpack(list, first, first + count - 1)
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

-- Answers the mark's time as the metadata have it and, where they have none (an older writer's
-- expire before its mark does), the milliseconds that the mark has yet to live.
local function mark_times(names)
  local marked_at = redis.call('HGET', names.metadata, 'permanent_fix_time') or ''
  if marked_at ~= '' then
    return marked_at, ''
  end
  return '', redis.call('PTTL', names.permanent_fix)
end

-- Answers an anomaly's tally: {30d, 7d, 24h, 1h, oldest, newest, repair attempts, mark,
-- mark's time, mark's remaining milliseconds}; '' stands for what there is not.
local function tally(names, starts)
  local result = count_windows(names.timeline, starts)
  local values = redis.call('MGET', names.repair_count, names.permanent_fix)
  local marked_at, remaining = '', ''
  if values[2] == '1' then
    marked_at, remaining = mark_times(names)
  end
  result[7] = values[1] or ''
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

-- Notes an id, and says whether it is a first.
local function is_first(names, id, now, kept_seconds)
  if redis.call('ZADD', names.operation_ids, 'NX', now, id) == 0 then
    return false
  end
  redis.call('EXPIRE', names.operation_ids, kept_seconds)
  redis.call('ZREMRANGEBYSCORE', names.operation_ids, '-inf',
    string.format('%.0f', tonumber(now) - tonumber(kept_seconds)))
  return true
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
